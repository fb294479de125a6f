/**
 * Cost of a request in token passes: padded tokens times passes of the student. Passes of other networks are
 * counted in passes of the student (GRAPH_COST).
 */

import { maskedPositions } from "../diffusion/canvas.ts";
import { tiltedSteps } from "../diffusion/guidance.ts";
import { DISCRIMINATOR, type Manifest } from "../model/manifest.ts";
import type { RewardWeights, SamplingParams } from "./request.ts";
import { paddedLength } from "./scheduling/scheduler.ts";
import { GRAPH_COST } from "./scheduling/speed.ts";

/** Tokens of rendered text that cost as much as one token pass (docs/operate/access.md). */
const TEXT_TOKENS_PER_PASS = 1024;

/** A step takes time however short its text is: it costs at least as much as a text of this many tokens. */
const MIN_TEXT_TOKENS = 256;

/**
 * Return an upper bound of the token passes that a request takes.
 *
 * A plain or tilted step runs only if it reveals a token, so there are at most as many as masked positions,
 * unless the model may draw the mask or tokens are masked again. A re-ranked step may run and reveal nothing,
 * since each candidate has its own reveal set and the chosen one may be empty. The clean-up pass, which about
 * one position in 100,000 needs, is not included: it is charged afterwards.
 */
export function maxTokenPasses(params: SamplingParams, manifest: Manifest): number {
  const { canvas, steps, guidance, smc, samples, ranked, remask, scored } = params;
  const countOf = (weights: RewardWeights | undefined) =>
    Object.keys(weights ?? { [DISCRIMINATOR]: 1 }).length;
  const padded = (length: number) => paddedLength(length, manifest.context_length);
  if (scored) return scored.reduce((sum, row) => sum + padded(row.canvas.length), 0) * GRAPH_COST.denoise;
  const masked = maskedPositions(canvas, manifest.mask_token_id).length;
  if (masked === 0) return 0;
  const tilted = guidance ? tiltedSteps(guidance, steps) : 0;
  const reranked = guidance ? steps - tilted : 0;
  const mayDrawMask = manifest.mask_logit === "kept";
  const scoring = countOf(params.rewards) * GRAPH_COST.score;
  const ranking = ranked ? countOf(params.rankBy) * GRAPH_COST.score : 0;
  if (smc)
    return (
      samples * padded(canvas.length) * (steps * smc.particles * (GRAPH_COST.denoise + scoring) + ranking)
    );
  const passes =
    (remask ? steps : Math.min(steps - tilted - reranked, masked)) * GRAPH_COST.denoise +
    (mayDrawMask ? tilted : Math.min(tilted, masked)) * GRAPH_COST.tilt +
    reranked * (GRAPH_COST.denoise + (guidance?.candidates ?? 0) * scoring) +
    ranking;
  return samples * padded(canvas.length) * passes;
}

/** Return the cost of rendering the answer, and of every step of it if `withSteps`: at least 1 token pass. */
export function emitCost({ canvas, steps, samples }: SamplingParams, withSteps: boolean): number {
  const texts = samples * (withSteps ? steps : 1);
  return Math.ceil((texts * Math.max(canvas.length, MIN_TEXT_TOKENS)) / TEXT_TOKENS_PER_PASS);
}
