/** When to try again, and how long to wait before it. */

import { DidiError } from "./error.ts";

/** How often and how patiently a request is tried again. */
export interface RetryPolicy {
  /** Tries after the first, for a request or, on a stream, since the last event; 0 for none. */
  retries: number;
  /** Milliseconds before the first of them; doubles with each. */
  firstMs: number;
  /** Most milliseconds it doubles up to. */
  longestMs: number;
  /** A server that asks for a longer wait than so many milliseconds is not asked again. */
  patienceMs: number;
}

export const RETRY: Readonly<RetryPolicy> = {
  retries: 5,
  firstMs: 500,
  longestMs: 10_000,
  patienceMs: 60_000,
};

/** The tries of one request. */
export class Tries {
  #used = 0;

  constructor(
    readonly policy: RetryPolicy,
    readonly signal: AbortSignal | undefined,
  ) {}

  /** Things went on: what was tried before does not count any more. */
  reset(): void {
    this.#used = 0;
  }

  /**
   * Waits until it is time for another try. Throws `error` if there is none, or `possible` is false, and the signal's
   * reason once it is aborted.
   */
  async again(error: unknown, possible = true): Promise<void> {
    this.signal?.throwIfAborted();
    if (!possible || !(error instanceof DidiError) || !error.retryable) throw error;
    const { retries, firstMs, longestMs, patienceMs } = this.policy;
    const asked = error.retryAfterMs ?? 0;
    if (this.#used >= retries || asked > patienceMs) throw error;
    const backOff = Math.min(longestMs, firstMs * 2 ** this.#used++);
    // Many that were sent away together do not come back together, and none before the time it was told.
    await wait(asked + backOff * (0.5 + Math.random() / 2), this.signal);
  }
}

/** Resolves after `ms` milliseconds. Rejects with the signal's reason once it is aborted. */
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
