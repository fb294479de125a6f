/** Divides the remaining time among the remaining measurements. */

/** A remaining measurement. */
export interface Pending {
  /** Its share of the time, relative to the others. */
  weight: number;
  /** Shortest duration in seconds. */
  floor: number;
}

/**
 * Return the seconds for a weight of 1 with which all of `pending` take `seconds`, where each takes the
 * greater of its share and its floor; 0 if the floors alone take longer.
 */
export function share(seconds: number, pending: readonly Pending[]): number {
  const needed = (unit: number) =>
    pending.reduce((sum, { weight, floor }) => sum + Math.max(weight * unit, floor), 0);
  let [low, high] = [0, seconds];
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (needed(middle) > seconds) high = middle;
    else low = middle;
  }
  return low;
}
