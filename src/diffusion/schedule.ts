/** The log-linear noise schedule and the time grid of a step budget (docs/understand/sampler.md). */

/** Parameters of `alpha(t) = 1 - (1 - alphaMin) t`; part of a model's manifest. */
export interface Schedule {
  /** Probability that a token is kept at t = 1. */
  alphaMin: number;
  /** Time at which the sampling grid ends. */
  tMin: number;
}

/** The schedule of the paper. */
export const LOG_LINEAR: Schedule = { alphaMin: 1e-3, tMin: 1e-5 };

/** Return the probability that a token is kept at time t in [0, 1]. */
export function alpha(schedule: Schedule, t: number): number {
  return 1 - (1 - schedule.alphaMin) * t;
}

/** Return `t_k` of the grid linspace(1, tMin, steps + 1), k in [0, steps]. */
export function gridTime(schedule: Schedule, steps: number, k: number): number {
  return k === steps ? schedule.tMin : k * ((schedule.tMin - 1) / steps) + 1;
}

/**
 * Return the probability that a masked position stays masked in step k (from 0) of `steps`: (1 - alpha_s -
 * sigma alpha_t) / (1 - alpha_t). It is 0 for the clean-up pass, k = `steps`.
 *
 * @param sigma probability with which the step masks a revealed token again (remask.ts)
 */
export function stayProbability(schedule: Schedule, steps: number, k: number, sigma = 0): number {
  if (k >= steps) return 0;
  const t = alpha(schedule, gridTime(schedule, steps, k));
  const s = alpha(schedule, gridTime(schedule, steps, k + 1));
  return (1 - s - sigma * t) / (1 - t);
}

/**
 * Return how many of `length` positions are masked after step k (from 0) of `steps` in order `confidence`.
 */
export function maskedAfter(schedule: Schedule, steps: number, k: number, length: number): number {
  if (k >= steps) return 0;
  const start = 1 - alpha(schedule, 1);
  const end = 1 - alpha(schedule, gridTime(schedule, steps, k + 1));
  return Math.floor((length * end) / start + 0.5);
}
