/** Numbers of logarithmic axes. */

/** Steps of a decade at which an axis may have a number. */
const NICE = [1, 1.5, 2, 3, 5, 7];
/** Fewest numbers on an axis. */
const LEAST_TICKS = 3;

/**
 * Return the numbers of a logarithmic axis: `own` values if there are enough, otherwise round ones around the
 * data too, so that an axis of less than a decade has more than one number.
 */
export function ticksOf(data: readonly number[], own: readonly number[] = []): number[] | undefined {
  const positive = data.filter((value) => value > 0);
  const [low, high] = [Math.min(...positive), Math.max(...positive)];
  if (own.length >= LEAST_TICKS) return [...own];
  if (positive.length === 0 || high / low > 30) return own.length > 0 ? [...own] : undefined;
  const decades = Array.from({ length: 40 }, (_, i) => 10 ** (i - 20));
  const nice = decades.flatMap((decade) => NICE.map((step) => Number((step * decade).toPrecision(2))));
  const within = nice.filter((value) => value >= low && value <= high);
  const around = [nice.findLast((value) => value < low)!, ...within, nice.find((value) => value > high)!];
  const chosen = within.length >= LEAST_TICKS ? within : around;
  return own.length > 0 ? [...new Set([...own, ...within])].toSorted((a, b) => a - b) : chosen;
}
