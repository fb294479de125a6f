/** Check a request against the model and turn it into sampling parameters. */

import { randomInt } from "node:crypto";
import { maskedPositions } from "../diffusion/canvas.ts";
import type { Guidance } from "../diffusion/guidance.ts";
import { invalid } from "../errors.ts";
import { defaultsOf } from "../model/manifest.ts";
import type { Model } from "../model/model.ts";
import { type Budget, chooseBudget, type Forecast, stepsFor } from "./budget.ts";
import { orderOf, prepareGuidance, rewardsFor } from "./decoding.ts";
import { layoutOf } from "./layout.ts";
import type { GenerateRequest, PreparedRequest, ScoredRow } from "./request.ts";

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

/**
 * Lay out the canvas, choose the budget and fill in defaults. Throws InvalidRequestError naming the field.
 */
export function prepare(model: Model, request: GenerateRequest, forecast: ForecastFor): PreparedRequest {
  if (request.scored) return prepareScored(model, request.scored, request.top_logprobs);
  const layout = layoutOf(model, request);
  const { canvas } = layout;
  if (request.echo && !layout.continues)
    throw invalid(
      "/echo",
      "has no effect without a prompt: a template is always answered with its given text",
    );
  const asked = prepareGuidance(model, request.guidance);
  const { smc } = asked;
  const { n, samples, ranked, ...rankBy } = countOf(model, request);
  if (request.early_stop && ranked)
    throw invalid("/early_stop", "cannot stand beside best_of, which scores whole canvases: leave one out");
  const generated = maskedPositions(canvas, model.manifest.mask_token_id).length;
  if (generated === 0 && ranked)
    throw invalid("/best_of", "has no effect where nothing is generated but choices made: leave it out");
  const { steps, guidance } = settleBudget(model, request, asked.guidance, Math.max(1, generated), (budget) =>
    forecast(budget, samples, canvas.length),
  );
  const rewards = asked.rewards ?? (guidance && rewardsFor(model, undefined, "/guidance"));
  const isGuided = rewards !== undefined;
  const { order: ownOrder } = defaultsOf(model.manifest);
  const order = orderOf(ownOrder, request, isGuided, generated, steps);
  const { seed = drawSeed(), past_end: pastEnd = false } = request;
  const { echo = false, logprobs = false, trace = false } = request;
  const { top_logprobs: topLogprobs = 0, decided, template, choices, choose } = request;
  if (topLogprobs > 0 && !logprobs)
    throw invalid("/top_logprobs", "has no effect without logprobs: set it to true");
  if (topLogprobs > 0 && smc)
    throw invalid("/top_logprobs", "cannot stand beside guidance mode smc: leave it out, or use mode rgas");
  if (topLogprobs >= model.manifest.mask_token_id)
    throw invalid(
      "/top_logprobs",
      `must be below the ${model.manifest.mask_token_id} tokens of ${model.manifest.name}`,
    );
  const stop = typeof request.stop === "string" ? [request.stop] : (request.stop ?? []);
  const texts = samples * steps;
  if (trace && texts * Math.max(canvas.length, MIN_TRACED) > MAX_TRACED)
    throw invalid(
      "/trace",
      `would hold ${texts} texts of ${Math.max(canvas.length, MIN_TRACED)} tokens, ` +
        `and may hold ${MAX_TRACED} ` +
        "tokens: ask for fewer steps or samples, or stream the steps instead",
    );
  return {
    params: {
      ...{ canvas, steps, seed, ...drawnAs(model, request, isGuided), ...order },
      ...{ earlyStop: request.early_stop ? stop : undefined, samples, ranked, ...rankBy, guidance },
      ...(smc && { smc }),
      ...(rewards && { rewards }),
      ...(topLogprobs > 0 && { topLogprobs }),
    },
    output: { layout, n, stop, pastEnd, echo, logprobs, trace },
    ...(decided && { decided: { ...decided, asked: { template, choices, choose } } }),
    deadlineMs: request.deadline_ms,
  };
}

/**
 * Return temperature, top_k and top_p. The model's own are chosen together, so a request that names one of them
 * takes none of the others.
 */
function drawnAs({ manifest }: Model, { temperature, top_k, top_p }: GenerateRequest, isGuided: boolean) {
  const isOwn = temperature === undefined && top_k === undefined && top_p === undefined;
  const own = isOwn ? defaultsOf(manifest) : { temperature: 1, top_k: 0, top_p: 1 };
  const guided = isGuided ? manifest.guidance?.temperature : undefined;
  return {
    temperature: temperature ?? guided ?? own.temperature,
    topK: top_k ?? own.top_k,
    topP: top_p ?? own.top_p,
  };
}

/** Prepare the scoring of tokens, each at its position of its canvas. */
function prepareScored(model: Model, scored: ScoredRow[], topLogprobs = 0): PreparedRequest {
  const { mask_token_id: mask, name } = model.manifest;
  const wrong = scored.find(({ token }) => token >= mask);
  if (wrong)
    throw invalid(
      `/prompt_tokens/${wrong.position}`,
      `must be below ${mask}, the id of the mask of ${name}, and is ${wrong.token}`,
    );
  const { canvas } = scored[0]!;
  const drawn = { seed: 0, temperature: 1, topK: 0, topP: 1, order: "random" as const, guidance: undefined };
  return {
    params: {
      ...{ canvas, steps: 1, ...drawn },
      ...{ threshold: undefined, entropyBudget: undefined, blockLength: undefined, earlyStop: undefined },
      ...{ samples: scored.length, ranked: false, scored, ...(topLogprobs > 0 && { topLogprobs }) },
    },
    output: {
      ...{ layout: { canvas, pieces: [], continues: false }, n: 0, stop: [], pastEnd: false },
      ...{ echo: false, logprobs: false, trace: false },
    },
    deadlineMs: undefined,
  };
}

/** Return how many samples to answer and to generate, and whether to rank them. */
function countOf(model: Model, { n = 1, best_of, rank_by }: GenerateRequest) {
  if (best_of === undefined && rank_by)
    throw invalid("/rank_by", "has no effect without best_of: leave it out, or set /best_of");
  if (best_of === undefined) return { n, samples: n, ranked: false as const };
  if (best_of < n) throw invalid("/best_of", `must be at least n, which is ${n}`);
  if (!model.manifest.guidance && !rank_by)
    throw invalid(
      "/best_of",
      `${model.manifest.name} has no discriminator to rank by: ` +
        (model.manifest.rewards ? "name its rewards in /rank_by" : "leave it out"),
    );
  return { n, samples: best_of, ranked: true as const, rankBy: rewardsFor(model, rank_by, "/rank_by") };
}

/**
 * Return the requested budget, or the best one for the deadline. Throws InvalidRequestError without a
 * deadline.
 */
function settleBudget(
  model: Model,
  request: GenerateRequest,
  asked: Guidance | undefined,
  generated: number,
  forecast: Forecast,
): Budget {
  const { steps, deadline_ms, quality, guidance, order, block_length, remask } = request;
  if (steps !== "auto") {
    if (quality === undefined) return { steps, guidance: asked };
    throw invalid("/quality", "has no effect beside a number of steps: set /steps to auto");
  }
  if (guidance?.mode === "smc")
    throw invalid("/steps", "cannot be auto with guidance mode smc, which is not measured: give a number");
  const { name, quality: measured = [] } = model.manifest;
  if (quality !== undefined) {
    const best = stepsFor(quality, asked ? "rgas" : "plain", measured, generated);
    if (best !== undefined) return { steps: best, guidance: asked };
    throw invalid("/quality", `cannot be met, as no quality of ${name} was measured: give a number of steps`);
  }
  if (deadline_ms === undefined)
    throw invalid(
      "/deadline_ms",
      "is required when steps is auto, to choose the budget by it: give it, or /quality",
    );
  const isOwn = order === undefined || order === defaultsOf(model.manifest).order;
  const plain = isOwn && !block_length && !remask;
  const mayGuide = guidance === undefined && plain && model.manifest.guidance !== undefined;
  const guidances = mayGuide ? [undefined, prepareGuidance(model, { mode: "rgas" }).guidance] : [asked];
  return chooseBudget(guidances, measured, generated, deadline_ms, forecast);
}
