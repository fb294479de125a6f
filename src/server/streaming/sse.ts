/**
 * Server-sent events: the events of a WebSocket as the answer to a request.
 *
 * A broken stream resumes without state on the server: the same request with the same seed has the same
 * steps. The id of an event holds the seed and the number of steps sent for each sample; the server sends the
 * steps after it. The id of the last event says that nothing follows.
 */

import type { ServerResponse } from "node:http";
import type { FastifyRequest } from "fastify";
import { invalid } from "../../errors.ts";
import type { ServerEvent, Sink } from "./outbox.ts";

/** Media types of the answers of /generate. */
const JSON_TYPE = "application/json; charset=utf-8";
const EVENTS_TYPE = "text/event-stream; charset=utf-8";

/** Milliseconds that a client should wait before it reconnects. */
const RETRY_MS = 1000;
/** Milliseconds between the comments that keep an idle connection open. */
const HEARTBEAT_MS = 15_000;

/** The events of a request that a client has received. */
export interface Progress {
  seed: number;
  /** Number of steps sent for each sample; shorter if the last samples have none. */
  steps: number[];
  /** True if the answer was among them. */
  ended: boolean;
}

/**
 * Return whether the Accept header prefers an event stream to JSON, by its weights; of equal ones the first
 * wins. A header that accepts neither media type gets JSON.
 */
export function wantsEvents(request: FastifyRequest): boolean {
  return request.accepts().type([JSON_TYPE, EVENTS_TYPE]) === EVENTS_TYPE;
}

/** Parse Last-Event-ID. Throw InvalidRequestError if it is no id of this server, or has another seed. */
export function parseLastEventId(header: string, seed: number | undefined): Progress {
  const refuse = (message: string) => invalid("/headers/Last-Event-ID", message);
  const match = /^(\d{1,16}):(\d{1,5}(?:,\d{1,5}){0,15})?(:done)?$/.exec(header);
  if (!match) throw refuse("is not an id of this server's events: leave it out to start anew");
  const steps = (match[2] ?? "").split(",").map(Number);
  const progress = { seed: Number(match[1]), steps, ended: match[3] !== undefined };
  if (progress.seed > Number.MAX_SAFE_INTEGER || (seed !== undefined && seed !== progress.seed))
    throw refuse(`belongs to a request of seed ${match[1]}, not ${seed}: send the same request again`);
  return progress;
}

/**
 * Start a response of server-sent events with these headers. While nothing is waiting to be sent, write a
 * comment every HEARTBEAT_MS, which keeps the connection open through proxies, until the response closes.
 */
export function startEvents(
  response: ServerResponse,
  headers: Record<string, number | string | string[] | undefined>,
): void {
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) response.setHeader(name, value);
  response.writeHead(200, {
    "content-type": EVENTS_TYPE,
    "cache-control": "no-store",
    // Without it, nginx buffers the events.
    "x-accel-buffering": "no",
  });
  const heartbeat = setInterval(() => {
    // A slow reader has data waiting, which keeps the connection open.
    if (!response.writableEnded && response.writableLength === 0) response.write(": still here\n\n");
  }, HEARTBEAT_MS);
  response.once("close", () => clearInterval(heartbeat));
}

/** Start a response and write events to it. */
export class EventStream implements Sink {
  readonly #steps: number[];
  readonly #seed: number;

  /** `resumable`: write an id with each event, not only with the last. `headers`: those of the response. */
  constructor(
    readonly response: ServerResponse,
    { seed, steps }: Pick<Progress, "seed" | "steps">,
    readonly resumable: boolean,
    headers: Record<string, number | string | string[] | undefined>,
  ) {
    this.#seed = seed;
    this.#steps = [...steps];
    startEvents(response, headers);
    response.write(`retry: ${RETRY_MS}\n\n`);
  }

  get open(): boolean {
    return !this.response.destroyed && !this.response.writableEnded;
  }

  get waiting(): number {
    return this.response.writableLength;
  }

  write(event: ServerEvent, sent: () => void): void {
    if (event.type === "step") {
      while (this.#steps.length < event.sample) this.#steps.push(0);
      this.#steps[event.sample] = event.step;
    }
    // Without an id at its end, an EventSource would send the request again from the beginning.
    const ended = event.type === "done";
    const id =
      this.resumable || ended ? `id: ${this.#seed}:${this.#steps.join()}${ended ? ":done" : ""}\n` : "";
    this.response.write(`event: ${event.type}\n${id}data: ${JSON.stringify(event)}\n\n`, () => sent());
  }
}
