/** The automatic step budget (`steps: "auto"`): for a quality, or the best one that fits the deadline. */

import type { Guidance } from "../diffusion/guidance.ts";
import type { Quality } from "../model/manifest.ts";

/** A step budget and how its steps are guided. */
export interface Budget {
  steps: number;
  /** Undefined for the plain sampler. */
  guidance: Guidance | undefined;
}

/** Estimate the milliseconds that a request with this budget would take from now, the backlog included. */
export type Forecast = (budget: Budget) => number;

/** Share of the deadline to plan with, since a forecast may be too low. */
const MARGIN = 0.8;

/** Without quality measurements, assume that more steps bring nothing. */
const MAX_UNMEASURED_STEPS = 128;

/**
 * Return the budget with the lowest measured generative perplexity that fits the deadline. If nothing was
 * measured for `guidances`, return the most steps of the first one that fit, at most one for each token.
 * Always at least one step.
 *
 * @param guidances allowed guidances, undefined for the plain sampler; at least one
 * @param quality measurements of the model
 * @param length new tokens
 */
export function chooseBudget(
  guidances: readonly (Guidance | undefined)[],
  quality: readonly Quality[],
  length: number,
  deadlineMs: number,
  forecast: Forecast,
): Budget {
  const fits = (budget: Budget) => forecast(budget) <= MARGIN * deadlineMs;
  const measured = guidances.flatMap((guidance) =>
    quality
      .filter(({ sampler, steps }) => sampler === (guidance ? "rgas" : "plain") && steps <= length)
      .map(({ steps, generative_perplexity }) => ({ steps, guidance, generative_perplexity })),
  );
  const [best] = measured
    .filter(fits)
    .toSorted((a, b) => a.generative_perplexity - b.generative_perplexity || a.steps - b.steps);
  if (best) return { steps: best.steps, guidance: best.guidance };
  const guidance = guidances[0];
  let steps = measured.length > 0 ? 1 : Math.min(length, MAX_UNMEASURED_STEPS);
  while (steps > 1 && !fits({ steps, guidance })) steps--;
  return { steps, guidance };
}

/** A quality that a request asks for. */
export type QualityLevel = "draft" | "normal" | "best";

/** Largest perplexity of each quality, as a multiple of the lowest measured one. */
const WITHIN: Record<QualityLevel, number> = { draft: 2.5, normal: 1.6, best: 1.1 };

/**
 * Return the fewest measured steps whose generative perplexity is near enough to the lowest one of the same
 * sampler, at most `length`; undefined if nothing was measured.
 *
 * @param sampler of the request
 * @param length new tokens
 */
export function stepsFor(
  level: QualityLevel,
  sampler: Quality["sampler"],
  quality: readonly Quality[],
  length: number,
): number | undefined {
  const measured = quality.filter((one) => one.sampler === sampler);
  if (measured.length === 0) return undefined;
  const lowest = Math.min(...measured.map(({ generative_perplexity }) => generative_perplexity));
  const near = measured.filter((one) => one.generative_perplexity <= WITHIN[level] * lowest);
  return Math.min(length, ...near.map(({ steps }) => steps));
}
