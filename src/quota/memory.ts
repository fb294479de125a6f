/**
 * Count what each API key has used of its limits; the interface allows several servers to share the counts.
 */

import type { LimitName } from "../errors.ts";

/** Usage of one limit by one key. */
export interface Usage {
  /** Amount used in the current window, including what was just taken. */
  used: number;
  /** Milliseconds until the window ends; Infinity without a window. */
  resetMs: number;
}

/** Counts usage. It does not enforce limits: a caller that exceeds one gives the amount back. */
export interface LimitStore {
  /**
   * Add `amount` to what `key` has used of `limit`; a negative amount gives back. A window of `windowMs`
   * starts with the first positive amount after the previous window has ended; Infinity never ends. The count
   * never drops below 0.
   */
  take(key: string, limit: LimitName, amount: number, windowMs: number): Promise<Usage>;
}

/** Window of the limits per minute. */
export const MINUTE_MS = 60_000;

interface Counter {
  used: number;
  endsAt: number;
}

/** Counts in this process, with one counter for each limit of each key in use. */
export class MemoryLimitStore implements LimitStore {
  readonly #counters = new Map<string, Counter>();

  /** @param now clock, milliseconds */
  constructor(readonly now: () => number = () => performance.now()) {}

  async take(key: string, limit: LimitName, amount: number, windowMs: number): Promise<Usage> {
    const name = `${limit} ${key}`;
    const now = this.now();
    let counter = this.#counters.get(name);
    if (!counter || counter.endsAt <= now) {
      // Giving back after the end of a window starts no new one.
      if (amount <= 0) return { used: 0, resetMs: windowMs };
      counter = { used: 0, endsAt: now + windowMs };
      this.#counters.set(name, counter);
    }
    counter.used = Math.max(0, counter.used + amount);
    return { used: counter.used, resetMs: counter.endsAt - now };
  }
}
