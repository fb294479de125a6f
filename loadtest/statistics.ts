/** The ratio of two sides that were measured several times each, and how sure it is. */

import jstat from "jstat";

/** B over A. */
export interface Ratio {
  /** Of the geometric means. */
  ratio: number;
  /** 95% interval; absent where a side was measured once, or a value is not above 0. */
  interval?: readonly [low: number, high: number];
}

/**
 * B over A: the ratio of the geometric means with Welch's t interval, on logarithms. With few repeats the interval is wide,
 * as it should be; resampling three values would make it too narrow. Values that are not above 0 leave the plain ratio of
 * the means.
 */
export function ratioOf(a: readonly number[], b: readonly number[]): Ratio {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  if ([...a, ...b].some((value) => !(value > 0))) return { ratio: mean(b) / mean(a) };
  const [logA, logB] = [moments(a), moments(b)];
  const ratio = Math.exp(logB.mean - logA.mean);
  if (a.length < 2 || b.length < 2) return { ratio };
  const error = Math.sqrt(logA.squaredError + logB.squaredError);
  if (error === 0) return { ratio, interval: [ratio, ratio] };
  const freedom =
    error ** 4 / (logA.squaredError ** 2 / (a.length - 1) + logB.squaredError ** 2 / (b.length - 1));
  const margin = jstat.studentt.inv(0.975, freedom) * error;
  return { ratio, interval: [ratio * Math.exp(-margin), ratio * Math.exp(margin)] };
}

/** Mean of the logarithms, and the square of its standard error. */
function moments(values: readonly number[]): { mean: number; squaredError: number } {
  const logs = values.map(Math.log);
  const mean = logs.reduce((sum, value) => sum + value, 0) / logs.length;
  const squares = logs.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, squaredError: squares / (logs.length - 1) / logs.length };
}
