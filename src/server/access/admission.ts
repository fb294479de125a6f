/** Submits requests to the engine within the limits of the client's API key. */

import type { FastifyBaseLogger } from "fastify";
import type { StepListener } from "../../engine/answers/step-emitter.ts";
import { choose, scoresOf } from "../../engine/choices.ts";
import type { Engine } from "../../engine/engine.ts";
import type { GenerateRequest, ScoredRow } from "../../engine/request.ts";
import type { CheckedRequest, RequestHandle } from "../../engine/subscriber.ts";
import { InvalidRequestError, type LimitName, LimitReachedError } from "../../errors.ts";
import { type LimitStore, MINUTE_MS } from "../../quota/memory.ts";
import { cancelAll } from "../streaming/cancellation.ts";
import type { ApiKey } from "./keys.ts";

/** A client; a Fastify request is one. */
export interface Caller {
  /** Null if the server requires no key. */
  key: ApiKey | null;
  log: FastifyBaseLogger;
}

/** Return milliseconds as whole seconds, at least 1, for Retry-After. */
const secondsOf = (ms: number) => Math.max(1, Math.ceil(ms / 1000));

/** Return the error of a limit a minute, for HTTP and WebSockets. */
export function minuteLimitReached(limit: LimitName, most: number, resetMs: number): LimitReachedError {
  const seconds = secondsOf(resetMs);
  const what = limit.replaceAll("_", " ").replace(" per minute", "");
  return new LimitReachedError(
    `this API key may use ${most} ${what} a minute: try again in ${seconds} s`,
    limit,
    seconds,
  );
}

/** Submits requests to the engine. */
export class Admission {
  constructor(
    readonly engine: Engine,
    readonly store: LimitStore,
    /** Whether to log prompts and texts. */
    readonly logPrompts: boolean,
  ) {}

  /**
   * Submit all requests or none. Steps are emitted after this resolves. Rejects with the errors of
   * `engine.check` and `engine.start`, with LimitReachedError, and with InvalidRequestError if the requests
   * alone exceed a limit of the key.
   */
  async submitAll(
    caller: Caller,
    requests: readonly GenerateRequest[],
    listen?: (index: number, ...step: Parameters<StepListener>) => void,
  ): Promise<RequestHandle[]> {
    const { key } = caller;
    const checked = requests.map((request) => this.engine.check(request, listen !== undefined));
    const giveBack = key ? await this.#take(key, checked) : () => {};
    const handles: RequestHandle[] = [];
    try {
      for (const [i, request] of checked.entries())
        handles.push(this.engine.start(request, listen && ((...step) => listen(i, ...step))));
    } catch (error) {
      cancelAll(handles);
      giveBack();
      throw error;
    }
    if (key) for (const handle of handles) this.#settle(key, handle);
    if (this.logPrompts) for (const [i, handle] of handles.entries()) this.#log(caller, requests[i]!, handle);
    return handles;
  }

  /** Submit one request, as `submitAll` does, once the choices of its template are made. */
  async submit(caller: Caller, asked: GenerateRequest, onStep?: StepListener): Promise<RequestHandle> {
    const score = async (scored: ScoredRow[]) => {
      const [handle] = await this.submitAll(caller, [{ scored, steps: 1 }]);
      return scoresOf(await handle!.result);
    };
    const request = await choose(this.engine.model, asked, score, (longest) => this.engine.check(longest));
    const [handle] = await this.submitAll(caller, [request], onStep && ((_, ...step) => onStep(...step)));
    return handle!;
  }

  /** Count a message of a WebSocket as a request. Rejects with LimitReachedError. */
  async countRequest({ key }: Caller): Promise<void> {
    const most = key?.limits.requests_per_minute;
    if (!key || most === undefined) return;
    const { used, resetMs } = await this.store.take(key.id, "requests_per_minute", 1, MINUTE_MS);
    if (used > most) throw minuteLimitReached("requests_per_minute", most, resetMs);
  }

  /** At the end of a request, give back its place, and the token passes that did not run. */
  #settle({ id, limits }: ApiKey, { result, cost, spent }: RequestHandle): void {
    const over = () => {
      if (limits.concurrent_requests !== undefined)
        this.#give(id, "concurrent_requests", 1, Number.POSITIVE_INFINITY);
      if (limits.token_passes_per_minute !== undefined && spent() !== cost)
        this.#give(id, "token_passes_per_minute", cost - spent(), MINUTE_MS);
    };
    result.then(over, over);
  }

  /** Take the cost of the requests from the limits of a key; return a function that gives all of it back. */
  async #take({ id, limits }: ApiKey, requests: readonly CheckedRequest[]): Promise<() => void> {
    const { concurrent_requests: side, token_passes_per_minute: most } = limits;
    const cost = requests.reduce((sum, request) => sum + request.cost, 0);
    const count = requests.length;
    if (side !== undefined && count > side)
      throw tooLarge(`has ${count} requests at once, and this API key may run ${side}: send fewer`);
    if (most !== undefined && cost > most)
      throw tooLarge(
        `may cost ${cost} token passes, and this API key may use ${most} a minute: ` +
          "ask for fewer steps, tokens or samples",
      );
    const taken: (() => void)[] = [];
    const giveBack = () => {
      for (const give of taken) give();
    };
    const take = async (limit: LimitName, amount: number, windowMs: number) => {
      const usage = await this.store.take(id, limit, amount, windowMs);
      taken.push(() => this.#give(id, limit, amount, windowMs));
      return usage;
    };
    if (side !== undefined) {
      const { used } = await take("concurrent_requests", count, Number.POSITIVE_INFINITY);
      if (used > side) {
        giveBack();
        throw new LimitReachedError(
          `this API key may run ${side} requests at once: wait until one has ended`,
          "concurrent_requests",
          this.engine.retryAfter,
        );
      }
    }
    if (most !== undefined) {
      const { used, resetMs } = await take("token_passes_per_minute", cost, MINUTE_MS);
      if (used > most) {
        giveBack();
        throw minuteLimitReached("token_passes_per_minute", most, resetMs);
      }
    }
    return giveBack;
  }

  #give(id: string, limit: LimitName, amount: number, windowMs: number): void {
    // The store logs its own failures, and the request has been answered.
    this.store.take(id, limit, -amount, windowMs).catch(() => {});
  }

  #log({ log }: Caller, request: GenerateRequest, { id, result }: RequestHandle): void {
    // A canvas for each scored token would be a million numbers.
    const scored = request.scored?.map(({ token }) => token);
    log.info({ id, request: scored ? { ...request, scored } : request }, "prompt");
    result.then(
      ({ samples }) => log.info({ id, texts: samples.map(({ text }) => text) }, "text"),
      () => {},
    );
  }
}

const tooLarge = (message: string) => new InvalidRequestError([{ path: "", message }], true);
