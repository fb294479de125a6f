/** Time as the engine sees it, so that tests can make it up. */

export interface Clock {
  /** Milliseconds since some moment. */
  now(): number;
  /** Does something so many milliseconds from now; returns what takes that back. */
  setTimeout(what: () => void, milliseconds: number): () => void;
}

export const WALL_CLOCK: Clock = {
  now: () => performance.now(),
  setTimeout(what, milliseconds) {
    const timer = setTimeout(what, milliseconds);
    return () => clearTimeout(timer);
  },
};
