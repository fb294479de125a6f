/** How the time that is left is shared among the measurements that are left. */

/** A measurement to come. */
export interface Pending {
  /** Its part of the time, beside the others'. */
  weight: number;
  /** Seconds that it takes at least. */
  floor: number;
}

/**
 * Seconds for a weight of 1, so that all of `pending`, each with the greater of its share and its floor, take `seconds`.
 * 0 where the floors alone take longer.
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
