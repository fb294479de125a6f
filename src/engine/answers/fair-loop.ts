/** Run background work in short slices of the event loop, fairly shared among its owners. */

import { setImmediate as nextTurn } from "node:timers/promises";

/** Milliseconds of work in one turn of the event loop. */
const SLICE_MS = 4;

/** Do a small piece of work, well under 1 ms. Return true if work is left. Must not throw. */
export type Piece = () => boolean;

/**
 * Run work of many owners round-robin, at most SLICE_MS in each turn of the event loop. A server needs one
 * instance for all work: two would run two slices a turn.
 *
 * @example
 * const steps = ["a", "b"];
 * new FairLoop().run(() => { console.log(steps.shift()); return steps.length > 0; });
 */
export class FairLoop {
  #waiting: Piece[] = [];
  /** Milliseconds of the current turn's slice that are used. */
  #usedMs = 0;
  #running = false;
  #turnIsDue = false;
  #lastTurn = Promise.resolve();

  /** @param now clock, milliseconds */
  constructor(readonly now: () => number = () => performance.now()) {}

  /** Start work: at once if the slice has time and no other work waits, otherwise in later turns. */
  run(piece: Piece): void {
    this.#waiting.push(piece);
    this.#runSlice();
  }

  /**
   * Wait for a turn of the event loop that no other caller gets, for work that cannot be cut: what continues at
   * once when this resolves runs in it.
   */
  turn(): Promise<void> {
    this.#lastTurn = this.#lastTurn.then(() => nextTurn());
    return this.#lastTurn;
  }

  #runSlice(): void {
    if (this.#running) return;
    this.#running = true;
    const started = this.now();
    const before = this.#usedMs;
    while (this.#waiting.length > 0 && this.#usedMs < SLICE_MS) {
      const piece = this.#waiting.shift()!;
      if (piece()) this.#waiting.push(piece);
      this.#usedMs = before + this.now() - started;
    }
    this.#running = false;
    if (this.#turnIsDue) return;
    this.#turnIsDue = true;
    setImmediate(() => {
      this.#turnIsDue = false;
      this.#usedMs = 0;
      if (this.#waiting.length > 0) this.#runSlice();
    });
  }
}
