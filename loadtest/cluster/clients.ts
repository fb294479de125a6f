/** Clients of the three transports that retry as the documents say, and compare every answer. */

import { setTimeout as sleep } from "node:timers/promises";
import { DidiClient, DidiError, RETRY } from "../../src/client/index.ts";
import { type Answer, REQUESTS, type Sample, type Step } from "../chaos/requests.ts";
import { emptyTally, judge, type Tally, WAYS, type Way } from "../chaos/traffic.ts";
import { bySocket, type Outcome } from "../chaos/ways.ts";
import { closedLoop } from "../traffic/closed.ts";
import { Random } from "../traffic/random.ts";

/** Concurrent requests on one socket. */
const PER_SOCKET = 2;
/** The largest requests take half a minute on half a core; they are left to `npm run chaos`. */
const INDICES = REQUESTS.flatMap(({ length = 0, n = 1 }, index) => (length * n < 400 ? [index] : []));

/** Mixed load: one client for each transport. */
export class MixedLoad {
  readonly tally: Tally = emptyTally();
  /** Milliseconds of every answer, with its retries. */
  readonly latencies: number[] = [];
  /** Failures that a client retried: connections, and statuses from 500. */
  retried = 0;
  readonly #client: DidiClient;
  readonly #headers: Record<string, string>;
  #random: Random;

  /**
   * @param expected the answers to REQUESTS in peace
   * @param seed of the choice of requests and of the streams that are broken off
   */
  constructor(
    readonly origin: string,
    apiKey: string,
    readonly expected: readonly Answer[],
    seed: number,
  ) {
    this.#random = new Random(seed);
    this.#headers = { authorization: `Bearer ${apiKey}` };
    this.#client = new DidiClient(origin, { apiKey, fetch: this.#fetch });
  }

  get answers(): number {
    return this.latencies.length;
  }

  /** Send requests until `over()`. */
  async run(over: () => boolean): Promise<void> {
    await closedLoop(
      WAYS.length,
      (client) => this.#ask(WAYS[client]!),
      () => !over(),
    );
  }

  /** Break off some streams after a few parts, and count resumptions and failures. */
  #fetch: typeof fetch = async (input, init) => {
    const headers = new Headers(init?.headers);
    if (headers.has("last-event-id")) this.tally.resumes++;
    const response = await fetch(input, init).catch((error: unknown) => {
      this.retried++;
      throw error;
    });
    if (response.status >= 500) this.retried++;
    const streamed = headers.get("accept") === "text/event-stream";
    if (!streamed || !response.ok || !this.#random.chance(0.3)) return response;
    let left = this.#random.integer(1, 4);
    const cut = new TransformStream<Uint8Array, Uint8Array>({
      transform(part, out) {
        if (left-- > 0) out.enqueue(part);
        else out.error(new Error("broken off by the test"));
      },
    });
    return new Response(response.body!.pipeThrough(cut), response);
  };

  async #ask(way: Way): Promise<void> {
    const count = way === "websocket" ? PER_SOCKET : 1;
    const indices = Array.from({ length: count }, () => this.#random.pick(INDICES));
    const started = performance.now();
    const outcomes = await (way === "websocket" ? this.#socket(indices) : this.#request(way, indices[0]!));
    for (const [i, outcome] of outcomes.entries()) {
      judge(outcome, way, indices[i]!, this.expected, this.tally);
      if (outcome.kind === "answered") this.latencies.push(performance.now() - started);
    }
  }

  async #request(way: "post" | "sse", index: number): Promise<Outcome[]> {
    const body = REQUESTS[index]!;
    try {
      if (way === "post") {
        const { samples } = await this.#client.generate(body);
        return [{ kind: "answered", resumes: 0, steps: undefined, samples }];
      }
      const steps: Step[] = [];
      let samples: Sample[] | undefined;
      for await (const event of this.#client.stream(body)) {
        if (samples) return [{ kind: "lost", why: `an event after done: ${event.type}` }];
        if (event.type === "step") steps.push(event);
        if (event.type === "done") samples = event.samples;
      }
      return [
        samples ? { kind: "answered", resumes: 0, steps, samples } : { kind: "lost", why: "no done event" },
      ];
    } catch (error) {
      if (!(error instanceof DidiError)) throw error;
      return [{ kind: "lost", why: `status ${error.status}: ${error.message}` }];
    }
  }

  /** Send requests on one socket. Send those that it does not answer on another, as often as DidiClient. */
  async #socket(indices: readonly number[]): Promise<Outcome[]> {
    const outcomes: Outcome[] = indices.map(() => ({ kind: "lost", why: "no socket opened" }));
    let open = indices.map((_, i) => i);
    for (let tries = 0; ; tries++) {
      const bodies = open.map((i) => REQUESTS[indices[i]!]!);
      const answered = await bySocket(this.origin, bodies, this.#headers).catch(() => undefined);
      for (const [i, outcome] of answered?.entries() ?? []) outcomes[open[i]!] = outcome;
      open = open.filter((i) => outcomes[i]!.kind !== "answered");
      if (open.length === 0 || tries === RETRY.retries) return outcomes;
      this.retried++;
      await sleep(Math.min(RETRY.longestMs, RETRY.firstMs * 2 ** tries));
    }
  }
}
