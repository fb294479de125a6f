/** Work that would block the event loop if it were done at once, in slices of a few milliseconds. */

/** Milliseconds of such work in one turn of the event loop. */
const SLICE_MS = 4;

/** Do a small piece of the work, well under a millisecond; return whether any is left. Must not throw. */
export type Piece = () => boolean;

/**
 * Shares the slice of each turn among all who have work, a piece at a time in rotation, however many they are. One
 * object for all work of a server: with two, a turn would hold two slices.
 */
export class FairLoop {
  #waiting: Piece[] = [];
  /** Milliseconds of this turn's slice that are used up. */
  #spentMs = 0;
  #running = false;
  #turnIsDue = false;

  constructor(readonly now: () => number = () => performance.now()) {}

  /** Start work: at once as far as this turn's slice allows and no other work waits, else in later turns. */
  run(piece: Piece): void {
    this.#waiting.push(piece);
    this.#runSlice();
  }

  #runSlice(): void {
    if (this.#running) return;
    this.#running = true;
    const started = this.now();
    const before = this.#spentMs;
    while (this.#waiting.length > 0 && this.#spentMs < SLICE_MS) {
      const piece = this.#waiting.shift()!;
      if (piece()) this.#waiting.push(piece);
      this.#spentMs = before + this.now() - started;
    }
    this.#running = false;
    if (this.#turnIsDue) return;
    this.#turnIsDue = true;
    setImmediate(() => {
      this.#turnIsDue = false;
      this.#spentMs = 0;
      if (this.#waiting.length > 0) this.#runSlice();
    });
  }
}
