/** A request, and what it is turned into: everything its tokens depend on, and how they are shown. */

import type { Guidance } from "../diffusion/guidance.ts";
import type { Smc } from "../diffusion/particles.ts";
import type { Remask } from "../diffusion/remask.ts";
import type { Order } from "../diffusion/step.ts";
import type { OutputOptions } from "./answers/text.ts";
import type { QualityLevel } from "./budget.ts";
import type { CanvasRequest } from "./layout.ts";

/** A request as the server passes it on; types and ranges are checked (openapi.yaml). */
export interface GenerateRequest extends CanvasRequest {
  /** Step budget, 1 to 1,024; `auto` chooses one for `quality`, or the best one that fits the deadline. */
  steps: number | "auto";
  /** With steps auto: how near to the model's best the text should be. */
  quality?: QualityLevel | undefined;
  /** Integer in [0, 2^53). Default: random. */
  seed?: number | undefined;
  /**
   * 0 takes the most likely token. If all of temperature, top_k and top_p are absent they are the model's own,
   * otherwise absent ones are 1 (for a guided request what the model has for it), 0 and 1.
   */
  temperature?: number | undefined;
  /** Sample from the k most likely tokens. 0 disables it. */
  top_k?: number | undefined;
  /** In (0, 1]; 1 disables it. */
  top_p?: number | undefined;
  /** Default: the model's own. */
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
  /** With best_of. Default: the discriminator. */
  rank_by?: RewardWeights | undefined;
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
  /** Options of the `{{choice}}` spans of a template, in order. */
  choices?: string[][] | undefined;
  /** How an option of a choice is taken. Default: likeliest. */
  choose?: "likeliest" | "draw" | undefined;
  /** The decided choices of the template (choices.ts). */
  decided?: Decided | undefined;
  /** Tokens to score instead of generating; only `top_logprobs` goes with it. */
  scored?: ScoredRow[] | undefined;
  /** Milliseconds within which the request is answered, with fewer steps if necessary. */
  deadline_ms?: number | undefined;
  guidance?: GuidanceRequest | undefined;
}

/** What was decided for one choice span. */
export interface Choice {
  /** Index of the option that was filled in. */
  chosen: number;
  text: string;
  options: {
    text: string;
    tokens: number;
    /** Natural log-likelihood at its place, of jointly decided choices summed over the other options. */
    logprob: number;
    /** Its share of the likelihood of all options. */
    probability: number;
  }[];
}

/** One option of each choice, and their joint log-likelihood. */
export interface Combination {
  options: number[];
  logprob: number;
}

/** The decided choices of a request. */
export interface Decided {
  choices: Choice[];
  /** The joint log-likelihood of each combination of options, if several choices were decided jointly. */
  combinations?: Combination[];
  /** Passes of the student that scored the options. */
  passes: number;
  /** Hash of every score and decision. */
  sha256: string;
}

/** A token whose log-probability is asked for, at a masked position of a canvas [L]. */
export interface ScoredRow {
  canvas: number[];
  position: number;
  token: number;
}

/** Weights of rewards by name; their weighted sum is what guides or ranks. */
export type RewardWeights = Record<string, number>;

/** How a request is guided. Fields that are absent take the model's defaults. */
export interface GuidanceRequest {
  mode: "none" | "rgas" | "smc";
  /** Default: the discriminator. */
  rewards?: RewardWeights | undefined;
  /** With mode smc. */
  particles?: number | undefined;
  resample_below?: number | undefined;
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
  /** Number of samples; of scored tokens, their number. */
  samples: number;
  /** Number of most likely tokens to return for each position; absent: none. */
  topLogprobs?: number;
  /** [samples] tokens to score instead of generating, one a sample. */
  scored?: ScoredRow[];
  /** Score every finished sample and put the best first. */
  ranked: boolean;
  /** With `ranked`, sorted by name. */
  rankBy?: RewardWeights;
  guidance: Guidance | undefined;
  smc?: Smc;
  /** With `guidance` or `smc`, sorted by name. */
  rewards?: RewardWeights;
}

/** A request that fits the model. */
export interface PreparedRequest {
  params: SamplingParams;
  output: OutputOptions;
  /** The choices of its template, and their fields as they were given. */
  decided?: Decided & { asked: Pick<GenerateRequest, "template" | "choices" | "choose"> };
  deadlineMs: number | undefined;
}
