/** What an answer can be checked by: which model, which request, and the hash of every step. */

import { createHash } from "node:crypto";
import { maskedPositions } from "../diffusion/canvas.ts";
import type { Order } from "../diffusion/sampler.ts";
import type { Precision } from "../model/manifest.ts";
import type { Model } from "../model/model.ts";
import type { Provider } from "../runtime/protocol.ts";
import type { Generation } from "./generation.ts";
import type { SampleRecord } from "./narrator.ts";
import type { Computation } from "./request.ts";

/** A request as a client would have to write it, nothing left to defaults: a prompt's ids and `length`, or `tokens`. */
export interface NormalisedRequest {
  prompt_tokens?: number[];
  length?: number;
  tokens?: number[];
  steps: number;
  seed: number;
  temperature: number;
  top_k: number;
  top_p: number;
  order: Order;
  n: number;
  best_of?: number;
  deadline_ms?: number;
  guidance: { mode: "none" } | { mode: "rgas"; scale: number[]; candidates: number; rerank_ratio: number };
}

/** Everything that is needed to compute an answer again, and to see that it is the same. */
export interface Receipt {
  model: string;
  /** Of the files that the model was run from (docs/sampler.md). */
  model_sha256: string;
  /** What the matrices were held in, and where the graphs ran. */
  precision: Precision;
  provider: Provider;
  /** The request with every default filled in, its text as tokens. */
  request: NormalisedRequest;
  /** Of the steps of every sample (docs/sampler.md); the same on the same kind of processor. */
  trace_sha256: string;
}

/** Hash of the steps of a request: sample by sample, each in order, as little-endian 32-bit numbers; then of the final rewards. */
export function traceSha256(records: readonly SampleRecord[], finalRewards: readonly number[] = []): string {
  const hash = createHash("sha256");
  const bySample = records.toSorted((a, b) => a.sample - b.sample);
  for (const { sample, record } of bySample) {
    const { step, revealed, rewards, chosen } = record;
    hash.update(Int32Array.of(sample, step, revealed.length, rewards.length, chosen ?? -1));
    hash.update(Int32Array.from(revealed.flatMap(({ position, token }) => [position, token])));
    hash.update(Float32Array.from([...revealed.map(({ logprob }) => logprob), ...rewards]));
  }
  return hash.update(Float32Array.from(finalRewards)).digest("hex");
}

/** The receipt of a finished generation. */
export function receiptOf(
  model: Model,
  provider: Provider,
  { computation, deadlineMs, records, rewards }: Generation,
): Receipt {
  return {
    model: model.manifest.name,
    model_sha256: model.sha256[provider],
    precision: model.precision[provider],
    provider,
    request: asRequest(computation, deadlineMs, model.manifest.mask_token_id),
    trace_sha256: traceSha256(
      records,
      rewards.map((reward) => reward!),
    ),
  };
}

function asRequest(
  computation: Computation,
  deadlineMs: number | undefined,
  mask: number,
): NormalisedRequest {
  const { canvas, steps, seed, temperature, topK, topP, order, samples, ranked, guidance } = computation;
  const masked = maskedPositions(canvas, mask).length;
  const prompt = canvas.slice(0, canvas.length - masked);
  const continues = !prompt.includes(mask);
  return {
    ...(continues ? { prompt_tokens: prompt, length: masked } : { tokens: canvas }),
    steps,
    seed,
    temperature,
    top_k: topK,
    top_p: topP,
    order,
    n: samples,
    ...(ranked && { best_of: samples }),
    ...(deadlineMs !== undefined && { deadline_ms: deadlineMs }),
    guidance: guidance
      ? {
          mode: "rgas",
          scale: [guidance.scaleStart, guidance.scaleEnd],
          candidates: guidance.candidates,
          rerank_ratio: guidance.rerankRatio,
        }
      : { mode: "none" },
  };
}
