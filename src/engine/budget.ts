/** `steps: auto`: the best step budget that there is time for. */

import type { Guidance } from "../diffusion/guidance.ts";
import type { Quality } from "../model/manifest.ts";

/** A step budget, and how its steps are guided. */
export interface Budget {
  steps: number;
  guidance: Guidance | undefined;
}

/** Milliseconds that a budget is expected to take from now on, what already runs and waits included. */
export type Forecast = (budget: Budget) => number;

/** Share of the time that is planned with: a forecast is no promise. */
const MARGIN = 0.8;

/** Without a measurement of the model, more steps than this are taken to bring nothing. */
const MOST_STEPS = 128;

/**
 * The budget with the lowest measured generative perplexity whose forecast leaves a margin of `deadlineMs`. Without a
 * measurement (`quality`) of any of `ways`: as many steps of the first way as there is time for, up to one a token. At
 * least one step.
 *
 * @param ways the guidances allowed, undefined for the plain sampler; at least one
 * @param length new tokens
 */
export function chooseBudget(
  ways: readonly (Guidance | undefined)[],
  quality: readonly Quality[],
  length: number,
  deadlineMs: number,
  forecast: Forecast,
): Budget {
  const fits = (budget: Budget) => forecast(budget) <= MARGIN * deadlineMs;
  const samplerOf = (guidance: Guidance | undefined) => (guidance ? "rgas" : "plain");
  const measured = ways.flatMap((guidance) =>
    quality
      .filter(({ sampler, steps }) => sampler === samplerOf(guidance) && steps <= length)
      .map(({ steps, generative_perplexity }) => ({ steps, guidance, generative_perplexity })),
  );
  const [best] = measured
    .filter(fits)
    .toSorted((a, b) => a.generative_perplexity - b.generative_perplexity || a.steps - b.steps);
  if (best) return { steps: best.steps, guidance: best.guidance };
  const guidance = ways[0];
  let steps = measured.length > 0 ? 1 : Math.min(length, MOST_STEPS);
  while (steps > 1 && !fits({ steps, guidance })) steps--;
  return { steps, guidance };
}
