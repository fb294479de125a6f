/** When to retry, and how long to wait first. */

import { DidiError } from "./error.ts";

/** How often to retry a request and how long to wait. */
export interface RetryPolicy {
  /** Retries of a request or, on a stream, since the last event; 0 disables them. */
  retries: number;
  /** Milliseconds before the first retry; doubles with each. */
  firstMs: number;
  /** Upper bound of that delay, milliseconds. */
  longestMs: number;
  /** Give up if the server asks for a longer wait than this, milliseconds. */
  patienceMs: number;
}

export const RETRY: Readonly<RetryPolicy> = {
  retries: 5,
  firstMs: 500,
  longestMs: 10_000,
  patienceMs: 60_000,
};

/** Counts the retries of one request. */
export class Tries {
  #used = 0;

  constructor(
    readonly policy: RetryPolicy,
    readonly signal: AbortSignal | undefined,
  ) {}

  /** Start counting anew after progress. */
  reset(): void {
    this.#used = 0;
  }

  /**
   * Wait until the next retry. Throws `error` if no retry is left or `possible` is false, and the signal's
   * reason if it is aborted.
   */
  async again(error: unknown, possible = true): Promise<void> {
    this.signal?.throwIfAborted();
    if (!possible || !(error instanceof DidiError) || !error.retryable) throw error;
    const { retries, firstMs, longestMs, patienceMs } = this.policy;
    const asked = error.retryAfterMs ?? 0;
    if (this.#used >= retries || asked > patienceMs) throw error;
    const backOff = Math.min(longestMs, firstMs * 2 ** this.#used++);
    // Random delays spread out clients that were refused at the same time; none returns before Retry-After.
    await wait(asked + backOff * (0.5 + Math.random() / 2), this.signal);
  }
}

/** Wait `ms` milliseconds. Rejects with the signal's reason if it is aborted. */
function wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const give = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", give);
      resolve();
    }, ms);
    signal?.addEventListener("abort", give, { once: true });
  });
}
