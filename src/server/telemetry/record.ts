/** What is kept of a request while it runs, for its line in the log, its span and the metrics. No text goes there. */

import type { FastifyReply, FastifyRequest } from "fastify";
import type { Answer } from "../../engine/answers/answer.ts";
import type { RequestHandle } from "../../engine/engine.ts";
import type { Problem, ProblemKind } from "../problem.ts";
import { pathWithoutKeys } from "./logger.ts";

/** Told of every request and of every generation of a WebSocket. */
export interface TelemetrySink {
  begin?(record: RequestRecord): void;
  /** One of its generations was accepted. */
  accepted?(record: RequestRecord, handle: RequestHandle): void;
  /** It is over; called once. */
  end(record: RequestRecord): void;
}

/** One HTTP request, or one message of a WebSocket. A WebSocket is itself a request, over when it closes. */
export class RequestRecord {
  /** Answers so far. */
  readonly answers: Answer[] = [];
  /** Ids of its generations. */
  readonly ids: string[] = [];
  status = 0;
  /** Why it was not answered. */
  problem: ProblemKind | undefined;
  /** Of its trace, if it has one. */
  traceId: string | undefined;
  readonly #startedAt = performance.now();
  #over = false;

  constructor(
    readonly request: FastifyRequest,
    readonly sinks: readonly TelemetrySink[],
    /** The socket that a message came over. */
    readonly parent?: RequestRecord,
  ) {
    for (const sink of sinks) sink.begin?.(this);
  }

  /** The pattern of its route, such as `/v1/models/:model`; `none` where no route matched. */
  get route(): string {
    return this.request.routeOptions?.url ?? "none";
  }

  /** Without the query, and without a key that somebody put there. */
  get path(): string {
    return pathWithoutKeys(this.request.url.split("?")[0]!);
  }

  /** True if it is a WebSocket, or came over one. */
  get socket(): boolean {
    return this.request.headers.upgrade !== undefined;
  }

  /** Milliseconds since it came. */
  get totalMs(): number {
    return performance.now() - this.#startedAt;
  }

  /** A record of one message that came over this socket. */
  message(): RequestRecord {
    return new RequestRecord(this.request, this.sinks, this);
  }

  /** Takes note of generations that were accepted, and later of their answers. */
  add(...handles: readonly RequestHandle[]): void {
    for (const handle of handles) {
      this.ids.push(handle.id);
      for (const sink of this.sinks) sink.accepted?.(this, handle);
      handle.result.then(
        (answer) => this.answers.push(answer),
        () => {}, // whoever waits for it says why
      );
    }
  }

  /** Takes note of the problem that it was answered with. */
  fail({ type, status }: Problem): void {
    this.problem = type.split(":").at(-1) as ProblemKind;
    this.status = status;
  }

  /** It is over, with this status if it did not fail. A second call does nothing. */
  end(status: number): void {
    if (this.#over) return;
    this.#over = true;
    if (!this.problem) this.status = status;
    for (const sink of this.sinks) sink.end(this);
  }
}

const records = new WeakMap<FastifyRequest, RequestRecord>();

/** The record of a request; there is one from the first hook on. */
export function recordOf(request: FastifyRequest): RequestRecord | undefined {
  return records.get(request);
}

/** Status of a request whose client left before its answer, as nginx has it. */
const CLIENT_GONE = 499;

/** Begins the record of a request; it ends with the answer, or the connection. */
export function beginRecord(
  request: FastifyRequest,
  reply: FastifyReply,
  sinks: readonly TelemetrySink[],
): RequestRecord {
  const record = new RequestRecord(request, sinks);
  records.set(request, record);
  const { raw } = reply;
  // What was thrown on the way is answered, and noted, before this runs.
  raw.once("close", () =>
    setImmediate(() => record.end(raw.headersSent ? raw.statusCode : record.socket ? 101 : CLIENT_GONE)),
  );
  return record;
}
