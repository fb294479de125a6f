/**
 * What a request costs, in token passes: padded tokens that go through the student, times passes. Work of other
 * networks counts as so many passes of the student (GRAPH_COST).
 */

import { maskedPositions } from "../diffusion/canvas.ts";
import { tiltedSteps } from "../diffusion/guidance.ts";
import type { Manifest } from "../model/manifest.ts";
import type { SamplingParams } from "./request.ts";
import { paddedLength } from "./scheduling/scheduler.ts";
import { GRAPH_COST } from "./scheduling/speed.ts";

/** Texts of so many tokens that are told cost as much as one token pass (docs/operate/access.md). */
const TOLD_PER_PASS = 1024;

/** To tell a step takes some time however short its text is: as much as a text of so many tokens. */
const SHORTEST_TOLD = 256;

/**
 * Return the most that can run. A plain or tilted step that runs reveals a token, so no more of them are paid than
 * positions are masked, unless the model may draw the mask. Every re-ranked step may run without revealing anything:
 * each candidate draws positions of its own, and the one that is kept may be empty. The clean-up pass, which about one
 * position in 100,000 needs, is left to the settlement.
 */
export function maxTokenPasses(params: SamplingParams, manifest: Manifest): number {
  const { canvas, steps, guidance, samples, ranked } = params;
  const masked = maskedPositions(canvas, manifest.mask_token_id).length;
  const tilted = guidance ? tiltedSteps(guidance, steps) : 0;
  const reranked = guidance ? steps - tilted : 0;
  const mayStay = manifest.mask_logit === "kept";
  const passes =
    Math.min(steps - tilted - reranked, masked) * GRAPH_COST.denoise +
    (mayStay ? tilted : Math.min(tilted, masked)) * GRAPH_COST.tilt +
    reranked * (GRAPH_COST.denoise + (guidance?.candidates ?? 0) * GRAPH_COST.score) +
    (ranked ? GRAPH_COST.score : 0);
  return samples * paddedLength(canvas.length, manifest.context_length) * passes;
}

/** Return what it costs to tell the answer, and every step of it if `isTold`: at least 1. */
export function emitCost({ canvas, steps, samples }: SamplingParams, isTold: boolean): number {
  const texts = samples * (isTold ? steps : 1);
  return Math.ceil((texts * Math.max(canvas.length, SHORTEST_TOLD)) / TOLD_PER_PASS);
}
