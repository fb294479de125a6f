/** Random choices that come out the same for the same seed. */

import { uniformsAt } from "../../src/diffusion/philox.ts";

/** A sequence of draws; `stream` tells several of one seed apart. */
export class Random {
  #drawn = 0;

  constructor(
    readonly seed: number,
    readonly stream = 0,
  ) {}

  /** In (0, 1). */
  next(): number {
    return uniformsAt({ seed: this.seed, sample: this.stream, step: this.#drawn++, candidate: 0 }, 0).draw;
  }

  /** A whole number from `least` to `most`. */
  integer(least: number, most: number): number {
    return least + Math.floor(this.next() * (most - least + 1));
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.next() < p;
  }

  /** One of them. */
  pick<T>(values: readonly T[]): T {
    return values[this.integer(0, values.length - 1)]!;
  }
}
