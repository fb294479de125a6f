/** Seeded random choices. */

import { uniformsAt } from "../../src/diffusion/philox.ts";

/** A sequence of draws; the streams of a seed are independent. */
export class Random {
  #drawn = 0;

  constructor(
    readonly seed: number,
    readonly stream = 0,
  ) {}

  /** Return a number in (0, 1). */
  next(): number {
    return uniformsAt({ seed: this.seed, sample: this.stream, step: this.#drawn++, candidate: 0 }, 0).draw;
  }

  /** Return an integer from `least` to `most`. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  /** Return true with probability `p`. */
  chance(p: number): boolean {
    return this.next() < p;
  }

  /** Return one of the values. */
  pick<T>(values: readonly T[]): T {
    return values[this.integer(0, values.length - 1)]!;
  }
}
