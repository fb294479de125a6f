/** Which rows are denoised and which wait: the owner of the bound on samples side by side. */

import type { Row } from "./row.ts";

/** Rows in order of arrival, as many of them with a place as there are places. */
export class Admission {
  #waiting: Row[] = [];
  #active: Row[] = [];

  constructor(
    /** How many places there are. */
    readonly count: number,
  ) {}

  /** Rows with a place. */
  get active(): readonly Row[] {
    return this.#active;
  }

  /** Rows without a place. */
  get waiting(): readonly Row[] {
    return this.#waiting;
  }

  /** Admission that nobody has. */
  get #empty(): number {
    return Math.max(0, this.count - this.#active.length);
  }

  /** Admission that nobody has or will get next. */
  get free(): number {
    return Math.max(0, this.#empty - this.#waiting.length);
  }

  /** Rows for which there will be no place next. */
  get queued(): readonly Row[] {
    return this.#waiting.slice(this.#empty);
  }

  /** Let a row wait for a place. */
  add(row: Row): void {
    this.#waiting.push(row);
  }

  /** Forget rows. */
  remove(isGone: (row: Row) => boolean): void {
    this.#waiting = this.#waiting.filter((row) => !isGone(row));
    this.#active = this.#active.filter((row) => !isGone(row));
  }

  /**
   * Give empty places to rows that wait, those that are due first. If there is none for a row that is due, it
   * gets that of the row that has had the most service, which then waits; so there are never more than
   * `count`.
   */
  fill(isDue: (row: Row) => boolean): void {
    const due = this.#waiting.filter(isDue);
    const displaced = this.#active
      .filter((row) => !row.running && !row.urgent && !isDue(row))
      .toSorted((a, b) => b.attained - a.attained)
      .slice(0, Math.max(0, due.length - this.#empty));
    this.#active = this.#active.filter((row) => !displaced.includes(row));
    const inOrder = [...due, ...displaced, ...this.#waiting.filter((row) => !isDue(row))];
    const { length } = this.#active;
    this.#active.push(...inOrder.slice(0, this.count - length));
    this.#waiting = inOrder.slice(this.count - length);
  }
}
