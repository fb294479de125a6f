/** A request, and what it is turned into: everything its tokens depend on, and how they are shown. */

import type { Guidance } from "../diffusion/guidance.ts";
import type { Remask } from "../diffusion/remask.ts";
import type { Order } from "../diffusion/step.ts";
import type { OutputOptions } from "./answers/text.ts";
import type { CanvasRequest } from "./layout.ts";

/** A request as the server passes it on; types and ranges are checked (openapi.yaml). */
export interface GenerateRequest extends CanvasRequest {
  /** Step budget, 1 to 1,024; `auto` chooses the best one that fits the deadline. */
  steps: number | "auto";
  /** Integer in [0, 2^53). Default: random. */
  seed?: number | undefined;
  /** 0 takes the most likely token. Default: 1, or the model's own for guided requests. */
  temperature?: number | undefined;
  /** Sample from the k most likely tokens. Default: 0, which disables it. */
  top_k?: number | undefined;
  /** In (0, 1]. Default: 1, which disables it. */
  top_p?: number | undefined;
  /** Default: random. */
  order?: Order | undefined;
  /** With order confidence: also reveal every token of at least this probability; in [0, 1]. */
  threshold?: number | undefined;
  /** With order entropy: also reveal positions whose entropies add up to at most this; nats. */
  entropy_budget?: number | undefined;
  /** Generate in blocks of this many tokens, from the left. Default: one block. */
  block_length?: number | undefined;
  /** Mask revealed tokens again, for later steps to correct. */
  remask?: RemaskRequest | undefined;
  /** Generate nothing after the end of the text. */
  early_stop?: boolean | undefined;
  /** Samples in the answer. Default: 1. */
  n?: number | undefined;
  /** Samples to generate; the `n` with the highest reward are answered. Default: n, without ranking. */
  best_of?: number | undefined;
  /** A generated span ends before the first of these. */
  stop?: string | string[] | undefined;
  /** Continue a span after an end of text. */
  past_end?: boolean | undefined;
  /** Start the answer with the prompt. */
  echo?: boolean | undefined;
  /** Add log-probabilities to the answer. */
  logprobs?: boolean | undefined;
  /** Add every step to the answer. */
  trace?: boolean | undefined;
  /** Number of most likely tokens to return for each position; absent: none. */
  top_logprobs?: number | undefined;
  /**
   * Ids to score instead of generating: each one's log-probability given all others; only `top_logprobs` goes
   * with it.
   */
  scored?: number[] | undefined;
  /** Milliseconds within which the request is answered, with fewer steps if necessary. */
  deadline_ms?: number | undefined;
  guidance?: GuidanceRequest | undefined;
}

/** How a request is guided. Fields that are absent take the model's defaults. */
export interface GuidanceRequest {
  mode: "none" | "rgas";
  /** [2] scale of the first and of the last tilted step. */
  scale?: number[] | undefined;
  candidates?: number | undefined;
  rerank_ratio?: number | undefined;
}

/** Which tokens are masked again. Default: over all steps. */
export type RemaskRequest = Pick<Remask, "mode" | "rate"> & {
  from?: number | undefined;
  to?: number | undefined;
};

/** Everything besides the model that the tokens depend on; the cache key. */
export interface SamplingParams {
  /** [L] ids, the mask where text is generated. */
  canvas: number[];
  steps: number;
  seed: number;
  temperature: number;
  topK: number;
  topP: number;
  order: Order;
  threshold: number | undefined;
  entropyBudget: number | undefined;
  blockLength: number | undefined;
  remask?: Remask;
  /**
   * Stop strings at which sampling ends, as it does at an end of text; undefined to generate every position.
   */
  earlyStop: readonly string[] | undefined;
  /** Number of samples; of scored ids, their number. */
  samples: number;
  /** Number of most likely tokens to return for each position; absent: none. */
  topLogprobs?: number;
  /**
   * [samples] ids to score instead of generating: sample i has all of them but number i, which it reveals.
   */
  scored?: number[];
  /** Score every finished sample and put the best first. */
  ranked: boolean;
  guidance: Guidance | undefined;
}

/** A request that fits the model. */
export interface PreparedRequest {
  params: SamplingParams;
  output: OutputOptions;
  deadlineMs: number | undefined;
}
