/**
 * Masking revealed tokens again, so that later steps correct them (ReMDM, arXiv 2503.00307;
 * docs/understand/sampler.md).
 */

import { alpha, gridTime, type Schedule } from "./schedule.ts";

/** Which revealed tokens are masked again. */
export interface Remask {
  /** `random`: each with the same probability; `confidence`: unlikely tokens with a higher one. */
  mode: "random" | "confidence";
  /** Largest probability with which a step masks a revealed token again; in (0, 1]. */
  rate: number;
  /** Share of the steps before the first that masks again; in [0, 1). */
  from: number;
  /** Share of the steps after which none does; in (from, 1]. */
  to: number;
}

/** Return true if step k (from 0) of `steps` masks tokens again. The last step never does. */
function remasks({ from, to }: Remask, steps: number, k: number): boolean {
  return k < steps - 1 && k / steps >= from && k / steps < to;
}

/** Return the step of `steps` from which none masks tokens again. */
export function remaskEnd(remask: Remask, steps: number): number {
  let end = steps - 1;
  while (end > 0 && !remasks(remask, steps, end - 1)) end--;
  return end;
}

/**
 * Return sigma of step k (from 0) of `steps`, the probability with which a revealed token is masked again: at
 * most `rate`, and at most what still leaves the step with its share of masks.
 */
export function remaskProbability(remask: Remask, schedule: Schedule, steps: number, k: number): number {
  if (!remasks(remask, steps, k)) return 0;
  const t = alpha(schedule, gridTime(schedule, steps, k));
  const s = alpha(schedule, gridTime(schedule, steps, k + 1));
  return Math.min(remask.rate, (1 - s) / t);
}

/**
 * Return the probability of each token to be masked again. In mode `confidence` they are sigma times weights
 * exp(-p) with a mean of 1, where p is the probability of the token when it was revealed.
 *
 * @param logprobs of the revealed tokens
 */
export function remaskProbabilities({ mode }: Remask, sigma: number, logprobs: readonly number[]): number[] {
  if (mode === "random") return logprobs.map(() => sigma);
  const weights = logprobs.map((logprob) => Math.exp(-Math.exp(logprob)));
  const mean = weights.reduce((sum, weight) => sum + weight, 0) / weights.length;
  return weights.map((weight) => (sigma * weight) / mean);
}
