/** How the time left is shared among the measurements left. */

/** A measurement to come. */
export interface Pending {
  /** Its share of the time, relative to the others. */
  weight: number;
  /** Its least seconds. */
  floor: number;
}

/**
 * Return the seconds for a weight of 1, so that all of `pending`, each with the greater of its share and its floor, take
 * `seconds`; 0 if the floors alone take longer.
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
