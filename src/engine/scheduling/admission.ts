/** Decide which rows are denoised and which wait; owns the bound of `--max-active`. */

import type { Row } from "./row.ts";

/** Rows in order of arrival; at most `limit` of them are active. */
export class Admission {
  #waiting: Row[] = [];
  #active: Row[] = [];

  /** @param limit rows that may be active at a time */
  constructor(readonly limit: number) {}

  /** Rows being denoised. */
  get active(): readonly Row[] {
    return this.#active;
  }

  /** Rows that wait. */
  get waiting(): readonly Row[] {
    return this.#waiting;
  }

  get #open(): number {
    return Math.max(0, this.limit - this.#active.length);
  }

  /** Further rows that would be admitted at once. */
  get free(): number {
    return Math.max(0, this.#open - this.#waiting.length);
  }

  /** Rows that wait and will not be admitted next. */
  get queued(): readonly Row[] {
    return this.#waiting.slice(this.#open);
  }

  /** Add a row to the queue. */
  add(row: Row): void {
    this.#waiting.push(row);
  }

  /** Remove rows. */
  remove(isGone: (row: Row) => boolean): void {
    this.#waiting = this.#waiting.filter((row) => !isGone(row));
    this.#active = this.#active.filter((row) => !isGone(row));
  }

  /**
   * Admit waiting rows, those with a near deadline (`isDue`) first. If none is free for a due row, it takes
   * the place of the active row with the most attained service, which waits again.
   */
  admit(isDue: (row: Row) => boolean): void {
    const due = this.#waiting.filter(isDue);
    const displaced = this.#active
      .filter((row) => !row.running && !row.urgent && !isDue(row))
      .toSorted((a, b) => b.attained - a.attained)
      .slice(0, Math.max(0, due.length - this.#open));
    const kept = this.#active.filter((row) => !displaced.includes(row));
    const queue = [...due, ...displaced, ...this.#waiting.filter((row) => !isDue(row))];
    const admitted = Math.max(0, this.limit - kept.length);
    this.#active = [...kept, ...queue.slice(0, admitted)];
    this.#waiting = queue.slice(admitted);
  }
}
