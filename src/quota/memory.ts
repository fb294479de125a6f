/** How much of its limits each key has used: behind one small interface, so that several servers can share it. */

import type { LimitName } from "../errors.ts";

/** What a key has used of a limit. */
export interface Usage {
  /** In the current window, what was just taken included. */
  used: number;
  /** Milliseconds until the window ends; Infinity for one that does not. */
  resetMs: number;
}

/** Counts. It knows no limits: whoever takes too much gives it back with a negative amount. */
export interface LimitStore {
  /**
   * Adds `amount`, negative to give back, to what `key` has used of `limit`. A window of `windowMs` begins with the first
   * positive amount after the one before it has ended; Infinity counts until all is given back. Never counts below 0.
   */
  take(key: string, limit: LimitName, amount: number, windowMs: number): Promise<Usage>;
}

/** The window of limits by the minute. */
export const MINUTE_MS = 60_000;

interface Counter {
  used: number;
  endsAt: number;
}

/** Counts in this process. It holds one counter for each limit of each key that was used. */
export class MemoryLimitStore implements LimitStore {
  readonly #counters = new Map<string, Counter>();

  /** `now` is a clock in milliseconds. */
  constructor(readonly now: () => number = () => performance.now()) {}

  async take(key: string, limit: LimitName, amount: number, windowMs: number): Promise<Usage> {
    const name = `${limit} ${key}`;
    const now = this.now();
    let counter = this.#counters.get(name);
    if (!counter || counter.endsAt <= now) {
      // What is given back after its window has ended begins none.
      if (amount <= 0) return { used: 0, resetMs: windowMs };
      counter = { used: 0, endsAt: now + windowMs };
      this.#counters.set(name, counter);
    }
    counter.used = Math.max(0, counter.used + amount);
    return { used: counter.used, resetMs: counter.endsAt - now };
  }
}
