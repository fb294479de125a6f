/** Charges requests to the limits of the client's API key. */

import type { CheckedRequest, RequestHandle } from "../../engine/subscriber.ts";
import { invalid, type LimitName, LimitReachedError } from "../../errors.ts";
import { type LimitStore, MINUTE_MS } from "../../quota/memory.ts";
import type { ApiKey } from "./keys.ts";

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

/** Gives back what was taken; the first call only. */
export type GiveBack = () => void;

/** The usage of all keys, counted in a store. */
export class KeyUsage {
  constructor(readonly store: LimitStore) {}

  /** Count a message of a WebSocket as a request. Rejects with LimitReachedError. */
  async countRequest(key: ApiKey | null): Promise<void> {
    const most = key?.limits.requests_per_minute;
    if (!key || most === undefined) return;
    const { used, resetMs } = await this.store.take(key.id, "requests_per_minute", 1, MINUTE_MS);
    if (used > most) throw minuteLimitReached("requests_per_minute", most, resetMs);
  }

  /**
   * Take places among the concurrent requests of a key. Rejects with LimitReachedError.
   *
   * @param retryAfter seconds after which a place may be free
   */
  takePlaces(key: ApiKey, count: number, retryAfter: number): Promise<GiveBack> {
    const most = key.limits.concurrent_requests;
    const error = () =>
      new LimitReachedError(
        `this API key may run ${most} requests at once: wait until one has ended`,
        "concurrent_requests",
        retryAfter,
      );
    return this.#take(key, "concurrent_requests", count, Number.POSITIVE_INFINITY, error);
  }

  /**
   * Take the places and the cost of requests from the limits of a key. Rejects with LimitReachedError, and
   * with InvalidRequestError if the requests alone exceed a limit.
   */
  async take(key: ApiKey, requests: readonly CheckedRequest[], retryAfter: number): Promise<GiveBack> {
    const { concurrent_requests: side, token_passes_per_minute: most } = key.limits;
    const cost = requests.reduce((sum, request) => sum + request.cost, 0);
    const count = requests.length;
    if (side !== undefined && count > side)
      throw tooLarge(`has ${count} requests at once, and this API key may run ${side}: send fewer`);
    if (most !== undefined && cost > most)
      throw tooLarge(
        `may cost ${cost} token passes, and this API key may use ${most} a minute: ` +
          "ask for fewer steps, tokens or samples",
      );
    const givePlaces = await this.takePlaces(key, count, retryAfter);
    try {
      const givePasses = await this.#take(key, "token_passes_per_minute", cost, MINUTE_MS, (resetMs) =>
        minuteLimitReached("token_passes_per_minute", most!, resetMs),
      );
      return () => {
        givePlaces();
        givePasses();
      };
    } catch (error) {
      givePlaces();
      throw error;
    }
  }

  /** At the end of a request, give back its place, and the token passes that did not run. */
  settle({ id, limits }: ApiKey, { result, cost, spent }: RequestHandle): void {
    const over = () => {
      if (limits.concurrent_requests !== undefined)
        this.#give(id, "concurrent_requests", 1, Number.POSITIVE_INFINITY);
      if (limits.token_passes_per_minute !== undefined && spent() !== cost)
        this.#give(id, "token_passes_per_minute", cost - spent(), MINUTE_MS);
    };
    result.then(over, over);
  }

  /** Take an amount from one limit of a key, if the key has it. */
  async #take(
    { id, limits }: ApiKey,
    limit: LimitName,
    amount: number,
    windowMs: number,
    error: (resetMs: number) => LimitReachedError,
  ): Promise<GiveBack> {
    const most = limits[limit];
    if (most === undefined) return () => {};
    const { used, resetMs } = await this.store.take(id, limit, amount, windowMs);
    let taken = true;
    const giveBack = () => {
      if (taken) this.#give(id, limit, amount, windowMs);
      taken = false;
    };
    if (used <= most) return giveBack;
    giveBack();
    throw error(resetMs);
  }

  #give(id: string, limit: LimitName, amount: number, windowMs: number): void {
    // The store logs its own failures, and the request has been answered.
    this.store.take(id, limit, -amount, windowMs).catch(() => {});
  }
}

const tooLarge = (message: string) => invalid("", message, true);
