/** Quantiles, and ratios of repeated measurements. */

/** Return the value below which a share `q` of `values` lies. */
export function quantile(values: readonly number[], q: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))]!;
}

/** Return the middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** Return `over` / `under`, element by element. */
export function ratios(over: readonly number[], under: readonly number[]): number[] {
  return over.map((value, i) => value / under[i]!);
}

/** B over A. */
export interface Ratio {
  /** Ratio of the geometric means. */
  ratio: number;
  /** 95% interval; absent if a side was measured once, or a value is not above 0. */
  interval?: readonly [low: number, high: number];
}

/**
 * Return B over A: the ratio of the geometric means with Welch's t interval on logarithms. With few repeats
 * the interval is wide, as it should be; resampling three values would make it too narrow. If a value is not
 * above 0, return the ratio of the arithmetic means.
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
  const margin = studentQuantile(freedom) * error;
  return { ratio, interval: [ratio * Math.exp(-margin), ratio * Math.exp(margin)] };
}

/** Return the mean of the logarithms, and the square of its standard error. */
function moments(values: readonly number[]): { mean: number; squaredError: number } {
  const logs = values.map(Math.log);
  const mean = logs.reduce((sum, value) => sum + value, 0) / logs.length;
  const squares = logs.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, squaredError: squares / (logs.length - 1) / logs.length };
}

/**
 * Return the t that 95% of Student's distribution lies within, for at least 1 degree of freedom. With t =
 * sqrt(n) tan(x) its density becomes that of cos(x)^(n - 1), which is summed by Simpson's rule and inverted
 * by halving.
 */
export function studentQuantile(freedom: number): number {
  const area = (to: number) => {
    const parts = 400;
    let sum = 0;
    for (let i = 0; i <= parts; i++) {
      const weight = i === 0 || i === parts ? 1 : i % 2 === 1 ? 4 : 2;
      sum += weight * Math.cos((to * i) / parts) ** (freedom - 1);
    }
    return (sum * to) / parts / 3;
  };
  // At a right angle, rounding may make the cosine negative.
  const whole = area(Math.PI / 2 - 1e-12);
  let [low, high] = [0, Math.PI / 2];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (area(middle) < 0.95 * whole) low = middle;
    else high = middle;
  }
  return Math.sqrt(freedom) * Math.tan(low);
}
