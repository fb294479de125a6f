/** Check a request against the model and turn it into sampling parameters. */

import { randomInt } from "node:crypto";
import { blockCount } from "../diffusion/blocks.ts";
import { maskedPositions } from "../diffusion/canvas.ts";
import type { Guidance } from "../diffusion/guidance.ts";
import type { Order } from "../diffusion/sampler.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { OutputOptions } from "./answers/text.ts";
import { type Budget, chooseBudget, type Forecast } from "./budget.ts";
import { type CanvasRequest, layoutOf } from "./layout.ts";

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

/**
 * Upper bound of tokens in the texts of a trace, such as 1,024 steps of a canvas of 256. A trace is one JSON
 * document, and serialising it blocks the event loop for some milliseconds a megabyte. A text counts at least
 * MIN_TRACED tokens.
 */
const MAX_TRACED = 2 ** 18;
const MIN_TRACED = 64;

/** Return a random seed of 48 bits, which every JSON parser keeps exactly. */
export function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}

/** Estimate the milliseconds that a budget would take from now, for `samples` canvases of `length` tokens. */
type ForecastFor = (budget: Budget, samples: number, length: number) => number;

const refuse = (path: string, message: string) => new InvalidRequestError([{ path, message }]);

/**
 * Lay out the canvas, choose the budget and fill in defaults. Throws InvalidRequestError naming the field.
 */
export function prepare(model: Model, request: GenerateRequest, forecast: ForecastFor): PreparedRequest {
  if (request.scored) return prepareScored(model, request.scored, request.top_logprobs);
  const layout = layoutOf(model, request);
  const { canvas } = layout;
  if (request.echo && !layout.continues)
    throw refuse(
      "/echo",
      "has no effect without a prompt: a template is always answered with its given text",
    );
  const asked = prepareGuidance(model, request.guidance);
  const { n, samples, ranked } = countOf(model, request);
  if (request.early_stop && ranked)
    throw refuse("/early_stop", "cannot stand beside best_of, which scores whole canvases: leave one out");
  const generated = maskedPositions(canvas, model.manifest.mask_token_id).length;
  const { steps, guidance } = settleBudget(model, request, asked, generated, (budget) =>
    forecast(budget, samples, canvas.length),
  );
  const order = orderOf(request, guidance, generated, steps);
  const { seed = drawSeed(), top_k: topK = 0, top_p: topP = 1 } = request;
  const temperature = request.temperature ?? (guidance && model.manifest.guidance?.temperature) ?? 1;
  const { past_end: pastEnd = false, echo = false, logprobs = false, trace = false } = request;
  const { top_logprobs: topLogprobs = 0 } = request;
  if (topLogprobs > 0 && !logprobs)
    throw refuse("/top_logprobs", "has no effect without logprobs: set it to true");
  if (topLogprobs >= model.manifest.mask_token_id)
    throw refuse(
      "/top_logprobs",
      `must be below the ${model.manifest.mask_token_id} tokens of ${model.manifest.name}`,
    );
  const stop = typeof request.stop === "string" ? [request.stop] : (request.stop ?? []);
  const texts = samples * steps;
  if (trace && texts * Math.max(canvas.length, MIN_TRACED) > MAX_TRACED)
    throw refuse(
      "/trace",
      `would hold ${texts} texts of ${Math.max(canvas.length, MIN_TRACED)} tokens, and may hold ${MAX_TRACED} ` +
        "tokens: ask for fewer steps or samples, or stream the steps instead",
    );
  return {
    params: {
      ...{ canvas, steps, seed, temperature, topK, topP, ...order },
      ...{ earlyStop: request.early_stop ? stop : undefined, samples, ranked, guidance },
      ...(topLogprobs > 0 && { topLogprobs }),
    },
    output: { layout, n, stop, pastEnd, echo, logprobs, trace },
    deadlineMs: request.deadline_ms,
  };
}

/** Prepare the scoring of ids: each one's log-probability with that position masked and every other shown. */
function prepareScored(model: Model, scored: number[], topLogprobs = 0): PreparedRequest {
  const { mask_token_id: mask, name } = model.manifest;
  const wrong = scored.findIndex((id) => id >= mask);
  if (wrong >= 0)
    throw refuse(
      `/prompt_tokens/${wrong}`,
      `must be below ${mask}, the id of the mask of ${name}, and is ${scored[wrong]}`,
    );
  const canvas = scored.with(0, mask);
  return {
    params: {
      ...{
        canvas,
        steps: 1,
        seed: 0,
        temperature: 1,
        topK: 0,
        topP: 1,
        order: "random",
        guidance: undefined,
      },
      ...{ threshold: undefined, entropyBudget: undefined, blockLength: undefined, earlyStop: undefined },
      ...{ samples: scored.length, ranked: false, scored, ...(topLogprobs > 0 && { topLogprobs }) },
    },
    output: {
      ...{ layout: layoutOf(model, { tokens: canvas }), n: 0, stop: [], pastEnd: false },
      ...{ echo: false, logprobs: false, trace: false },
    },
    deadlineMs: undefined,
  };
}

/**
 * Return in which order positions are revealed. Throws InvalidRequestError for options that exclude each
 * other.
 */
function orderOf(
  { order = "random", threshold, entropy_budget: entropyBudget, block_length }: GenerateRequest,
  guidance: Guidance | undefined,
  generated: number,
  steps: number,
): Pick<SamplingParams, "order" | "threshold" | "entropyBudget" | "blockLength"> {
  if (threshold !== undefined && order !== "confidence")
    throw refuse("/threshold", `has no effect in order ${order}: set /order to confidence`);
  if (entropyBudget !== undefined && order !== "entropy")
    throw refuse("/entropy_budget", `has no effect in order ${order}: set /order to entropy`);
  if (guidance && order !== "random")
    throw refuse("/order", `${order} cannot be guided: use order random, or guidance mode none`);
  if (guidance && block_length !== undefined)
    throw refuse("/block_length", "cannot stand beside guidance: leave it out, or use guidance mode none");
  const blockLength = block_length !== undefined && block_length < generated ? block_length : undefined;
  const blocks = blockLength ? blockCount(generated, blockLength) : 1;
  if (blocks > steps)
    throw refuse(
      "/block_length",
      `makes ${blocks} blocks of ${generated} tokens, and each needs a step of the ${steps}: ` +
        `use at least ${Math.ceil(generated / steps)}, or more steps`,
    );
  return { order, threshold, entropyBudget, blockLength };
}

/** Return how many samples to answer and to generate, and whether to rank them. */
function countOf(model: Model, { n = 1, best_of }: GenerateRequest) {
  if (best_of === undefined) return { n, samples: n, ranked: false };
  if (best_of < n) throw refuse("/best_of", `must be at least n, which is ${n}`);
  if (!model.manifest.guidance)
    throw refuse("/best_of", `${model.manifest.name} has no discriminator to rank by: leave it out`);
  return { n, samples: best_of, ranked: true };
}

/**
 * Return the requested budget, or the best one for the deadline. Throws InvalidRequestError without a
 * deadline.
 */
function settleBudget(
  model: Model,
  { steps, deadline_ms, guidance, order = "random", block_length }: GenerateRequest,
  asked: Guidance | undefined,
  generated: number,
  forecast: Forecast,
): Budget {
  if (steps !== "auto") return { steps, guidance: asked };
  if (deadline_ms === undefined)
    throw refuse("/deadline_ms", "is required when steps is auto: the budget is chosen to meet it");
  const mayGuide =
    guidance === undefined && order === "random" && !block_length && model.manifest.guidance !== undefined;
  const guidances = mayGuide ? [undefined, prepareGuidance(model, { mode: "rgas" })] : [asked];
  return chooseBudget(guidances, model.manifest.quality ?? [], generated, deadline_ms, forecast);
}

/** Return the guidance of a request with the model's defaults filled in; undefined for the plain sampler. */
function prepareGuidance(model: Model, request: GuidanceRequest | undefined): Guidance | undefined {
  if (!request) return undefined;
  const { mode, ...settings } = request;
  if (mode === "none") {
    const given = Object.entries(settings).find(([, value]) => value !== undefined);
    if (!given) return undefined;
    throw refuse(
      `/guidance/${given[0]}`,
      "has no effect without guidance: leave it out, or set /guidance/mode to rgas",
    );
  }
  const defaults = model.manifest.guidance;
  if (!defaults)
    throw refuse(
      "/guidance/mode",
      `${model.manifest.name} has no discriminator to guide with: use mode none, or another model`,
    );
  const [scaleStart, scaleEnd] = settings.scale ?? [defaults.scale_start, defaults.scale_end];
  return {
    candidates: settings.candidates ?? defaults.candidates,
    scaleStart: scaleStart!,
    scaleEnd: scaleEnd!,
    rerankRatio: settings.rerank_ratio ?? defaults.rerank_ratio,
  };
}
