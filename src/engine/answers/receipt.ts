/** Receipts: the model, the request and the hash of every step, from which an answer can be verified. */

import { createHash } from "node:crypto";
import { maskedPositions } from "../../diffusion/canvas.ts";
import type { Remask } from "../../diffusion/remask.ts";
import type { Order } from "../../diffusion/step.ts";
import type { Precision } from "../../model/manifest.ts";
import type { Model } from "../../model/model.ts";
import type { Provider } from "../../runtime/protocol.ts";
import type { PreparedRequest, RewardWeights, SamplingParams } from "../request.ts";
import type { SampleRecord } from "./step-emitter.ts";

/** A request with every default filled in: `prompt_tokens` and `length`, or `tokens`. */
export interface NormalisedRequest {
  /** As it was given, if it has choices. */
  template?: string;
  choices?: string[][];
  choose?: "likeliest" | "draw";
  prompt_tokens?: number[];
  length?: number;
  tokens?: number[];
  steps: number;
  seed: number;
  temperature: number;
  top_k: number;
  top_p: number;
  order: Order;
  threshold?: number;
  entropy_budget?: number;
  block_length?: number;
  remask?: Remask;
  early_stop?: true;
  /** Where early stop ends the text. */
  stop?: string[];
  n: number;
  best_of?: number;
  deadline_ms?: number;
  rank_by?: RewardWeights;
  guidance:
    | { mode: "none" }
    | { mode: "rgas"; rewards: RewardWeights; scale: number[]; candidates: number; rerank_ratio: number }
    | { mode: "smc"; rewards: RewardWeights; particles: number; resample_below: number };
}

/** Everything needed to compute an answer again and to compare it. */
export interface Receipt {
  model: string;
  /** Identity of the model (docs/understand/sampler.md). */
  model_sha256: string;
  /** Number format of the matrices. */
  precision: Precision;
  /** Where the graphs ran. */
  provider: Provider;
  request: NormalisedRequest;
  /** Hash of the steps of every sample; equal on equal processors. */
  trace_sha256: string;
  /** Hash of the scores of every option and what was chosen, of a template with choices. */
  choices_sha256?: string;
}

/**
 * Return the hex sha256 of the steps of a request, sample by sample, each in order, and then of the final
 * rewards, all as little-endian 32-bit numbers (docs/understand/sampler.md).
 */
export function traceSha256(records: readonly SampleRecord[], finalRewards: readonly number[] = []): string {
  const bySample = records.toSorted((a, b) => a.sample - b.sample);
  const count = bySample.reduce(
    (sum, { record: { revealed, rewards, remasked } }) =>
      sum + 5 + 3 * revealed.length + rewards.length + (remasked ? 1 + remasked.length : 0),
    finalRewards.length,
  );
  // One buffer, since thousands of small updates of the hash would block the event loop.
  const integers = new Int32Array(count);
  const floats = new Float32Array(integers.buffer);
  let at = 0;
  for (const { sample, record } of bySample) {
    const { step, revealed, rewards, chosen, remasked } = record;
    for (const integer of [sample, step, revealed.length, rewards.length, chosen ?? -1])
      integers[at++] = integer;
    for (const { position, token } of revealed) {
      integers[at++] = position;
      integers[at++] = token;
    }
    for (const integer of remasked ? [remasked.length, ...remasked] : []) integers[at++] = integer;
    for (const { logprob } of revealed) floats[at++] = logprob;
    for (const reward of rewards) floats[at++] = reward;
  }
  for (const reward of finalRewards) floats[at++] = reward;
  return createHash("sha256").update(integers).digest("hex");
}

/** Return the receipt of a request, with its own deadline even if it shares the steps of another request. */
export function receiptOf(
  model: Model,
  { params, deadlineMs, decided }: PreparedRequest,
  { provider, traceSha256: trace_sha256 }: { provider: Provider; traceSha256: string },
): Receipt {
  return {
    model: model.manifest.name,
    model_sha256: model.sha256[provider],
    precision: model.precision[provider],
    provider,
    request: asRequest({ params, deadlineMs, decided }, model.manifest.mask_token_id),
    trace_sha256,
    ...(decided && { choices_sha256: decided.sha256 }),
  };
}

/** Return the fields of a canvas: a template with choices as it was given, otherwise as ids. */
function canvasOf(
  canvas: number[],
  decided: PreparedRequest["decided"],
  mask: number,
): Partial<NormalisedRequest> {
  if (decided) {
    const { template, choices, choose = "likeliest" } = decided.asked;
    return { template: template!, ...(choices && { choices }), choose };
  }
  const masked = maskedPositions(canvas, mask).length;
  const prompt = canvas.slice(0, canvas.length - masked);
  return prompt.includes(mask) ? { tokens: canvas } : { prompt_tokens: prompt, length: masked };
}

function asRequest(
  {
    params,
    deadlineMs,
    decided,
  }: Pick<PreparedRequest, "params" | "deadlineMs"> & { decided: PreparedRequest["decided"] | undefined },
  mask: number,
): NormalisedRequest {
  const { canvas, steps, seed, temperature, topK, topP, order, samples, ranked, ...adaptive } = params;
  return {
    ...canvasOf(canvas, decided, mask),
    steps,
    seed,
    temperature,
    top_k: topK,
    top_p: topP,
    order,
    ...(adaptive.threshold !== undefined && { threshold: adaptive.threshold }),
    ...(adaptive.entropyBudget !== undefined && { entropy_budget: adaptive.entropyBudget }),
    ...(adaptive.blockLength !== undefined && { block_length: adaptive.blockLength }),
    ...(adaptive.remask && { remask: adaptive.remask }),
    ...(adaptive.earlyStop && { early_stop: true }),
    ...(adaptive.earlyStop?.length && { stop: [...adaptive.earlyStop] }),
    n: samples,
    ...(ranked && { best_of: samples, rank_by: params.rankBy! }),
    ...(deadlineMs !== undefined && { deadline_ms: deadlineMs }),
    guidance: guidanceOf(params),
  };
}

function guidanceOf({ guidance, smc, rewards }: SamplingParams): NormalisedRequest["guidance"] {
  if (smc)
    return {
      mode: "smc",
      rewards: rewards!,
      particles: smc.particles,
      resample_below: smc.resampleBelow,
    };
  if (!guidance) return { mode: "none" };
  return {
    mode: "rgas",
    rewards: rewards!,
    scale: [guidance.scaleStart, guidance.scaleEnd],
    candidates: guidance.candidates,
    rerank_ratio: guidance.rerankRatio,
  };
}
