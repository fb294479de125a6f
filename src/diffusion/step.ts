/** Parameters of a sample, and its steps before and after the model runs. */

import type { Reveal } from "./canvas.ts";
import type { Guidance, StepKind } from "./guidance.ts";
import type { Smc } from "./particles.ts";
import type { Remask } from "./remask.ts";
import type { Predictions, Ranking, Selection } from "./selection.ts";

/**
 * Which positions a step reveals. `random` reveals each with the probability of the step, as in the paper;
 * `spread` positions that lie apart (`spreadSteps`). The others draw a token for every masked position and
 * keep the step's share of them (`select`), so that their output head runs on all masked positions.
 */
export type Order = DrawnOrder | Ranking;

/** Orders that are drawn before the model runs. Only they can be guided. */
export type DrawnOrder = "random" | "spread";

/** Return true if the positions of a step do not depend on what the model predicts. */
export function isDrawn(order: Order): order is DrawnOrder {
  return order === "random" || order === "spread";
}

/** Parameters of a sample, which determine its tokens together with the model. */
export interface SampleParams {
  /** [L] ids, the mask where text is generated; at least one. */
  canvas: readonly number[];
  /** Step budget, at least 1. */
  steps: number;
  /** Integer in [0, 2^53). */
  seed: number;
  /** Index of the sample in its request. */
  sample: number;
  /** 0 takes the most likely token. */
  temperature: number;
  /** Sample from the k most likely tokens; 0 disables. */
  topK: number;
  /** Then from the fewest tokens whose probabilities add up to this; 1 disables. */
  topP: number;
  order: Order;
  /** With order `confidence`: a step also reveals every token of at least this probability; in [0, 1]. */
  threshold?: number | undefined;
  /** With order `entropy`: a step also reveals positions while their entropies sum up to this, in nats. */
  entropyBudget?: number | undefined;
  /** Masked positions in a block, at least 1; undefined for one block. No more blocks than steps. */
  blockLength?: number | undefined;
  /** Mask revealed tokens again; undefined for never. Needs no threshold, entropy budget or guidance. */
  remask?: Remask | undefined;
  /** Number of most likely tokens to return for each revealed position; absent: none. */
  topLogprobs?: number | undefined;
  /**
   * Reveal this token alone, for its log-probability, and end; the temperature is then PROBE_TEMPERATURE.
   * Needs order `random`.
   */
  given?: { position: number; token: number } | undefined;
  /** Undefined for the plain sampler. Needs order `random` or `spread`, and one block. */
  guidance?: Guidance | undefined;
  /** Undefined for one particle. Needs order `random` or `spread`, one block, neither guidance nor remask. */
  smc?: Smc | undefined;
}

/** Return how many of the most likely tokens a pass returns for each draw. A margin is between two. */
export function alternativesOf({
  order,
  topLogprobs = 0,
}: {
  order?: Order;
  topLogprobs?: number | undefined;
}) {
  return order === "margin" ? Math.max(2, topLogprobs) : topLogprobs;
}

/** The positions that one candidate of a step reveals, drawn before the model runs. */
export interface DrawPlan {
  /** Positions to reveal, ascending. */
  positions: number[];
  /** One uniform in (0, 1) for each position, for its draw by inverse CDF. */
  uniforms: number[];
  /** Which of the drawn positions to reveal; absent reveals all. */
  selection?: Selection;
}

/** A step before the model runs. */
export interface StepPlan {
  kind: StepKind;
  /** From 0; equal to the budget for the clean-up pass. */
  step: number;
  /** Time at the start of the step; 1 is fully masked. Each block has its own time. */
  t: number;
  /** Probability that a masked position stays masked. */
  stay: number;
  /** One candidate, M for a re-ranked step, or one for each particle. */
  candidates: DrawPlan[];
  /** The canvas [L] of each particle; absent if candidates share the sample's. */
  canvases?: Int32Array[];
  /** Revealed positions to mask again after the draws, ascending. */
  remasked: number[];
  /** h of a tilted step, 0 for others. */
  scale: number;
}

/** One token for each planned position of a candidate, and what the model predicted there. */
export interface Draws extends Predictions {
  tokens: ArrayLike<number>;
}

/** Return true if the step reveals nothing and so needs no pass. */
export function isEmpty(plan: StepPlan): boolean {
  return plan.candidates.every(({ positions }) => positions.length === 0);
}

/** Check that the results of a pass fit its plan. Throws RangeError if not. */
export function checkFit(plan: StepPlan, draws: readonly Draws[], rewards: ArrayLike<number>): void {
  const check = (what: string, planned: number, given: number) => {
    if (given !== planned) throw new RangeError(`the plan has ${planned} ${what}, and ${given} were given`);
  };
  check("candidates", plan.candidates.length, draws.length);
  for (const [i, { positions }] of plan.candidates.entries())
    for (const made of [draws[i]!.tokens, draws[i]!.logprobs]) check("tokens", positions.length, made.length);
  check("rewards", plan.kind === "plain" ? 0 : plan.candidates.length, rewards.length);
}

/** A finished step. */
export interface StepRecord {
  kind: StepKind;
  step: number;
  t: number;
  revealed: Reveal[];
  /** Positions that are masked again, ascending, none of them in `revealed`; present with `remask`. */
  remasked?: number[];
  /** Tokens before this position can no longer change once they are revealed; present with `remask`. */
  settled?: number;
  /** Positions still masked after the step. */
  masked: number;
  /** Mean entropy of the predictions at the drawn positions, nats; absent if none was drawn. */
  entropy?: number;
  /**
   * Reward of the soft canvas (tilt), or of each candidate (rerank) or particle (smc); empty if nothing was
   * scored.
   */
  rewards: number[];
  /** Index of the chosen candidate of a re-ranked step, or of the particle that became the sample. */
  chosen?: number;
  /** Of the particles, before resampling; in [1, particles]. */
  effectiveSampleSize?: number;
  /** The particle that each particle continues; present if the step resampled. */
  ancestors?: number[];
}

/** Number of passes, by network. A re-ranked step takes M passes of the discriminator. */
export interface Passes {
  student: number;
  discriminator: number;
  gradient: number;
}
