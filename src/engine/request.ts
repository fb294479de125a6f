/** From what a client asks for to what the sampler needs, checked against the model. */

import { randomInt } from "node:crypto";
import { maskedPositions } from "../diffusion/canvas.ts";
import type { Guidance } from "../diffusion/guidance.ts";
import type { Order } from "../diffusion/sampler.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { OutputOptions } from "./answers/text.ts";
import { type Budget, chooseBudget, type Forecast } from "./budget.ts";
import { type CanvasRequest, layoutOf } from "./layout.ts";

/** A request as the face hands it over: types and ranges are already checked. */
export interface GenerateRequest extends CanvasRequest {
  /** Step budget, 1 to 1,024; or the best that the deadline has time for. */
  steps: number | "auto";
  /** Integer in [0, 2^53); absent: drawn. */
  seed?: number | undefined;
  /** 0 takes the most likely token; absent: 1, or the model's own for guided draws. */
  temperature?: number | undefined;
  /** 0 or absent: all tokens. */
  top_k?: number | undefined;
  /** In (0, 1]; absent: 1. */
  top_p?: number | undefined;
  /** Absent: random. */
  order?: Order | undefined;
  /** Samples in the answer; absent: 1. */
  n?: number | undefined;
  /** Samples that are generated, for the `n` of the highest reward to be answered; absent: n, unranked. */
  best_of?: number | undefined;
  /** Texts before which a generated span ends; absent: none. */
  stop?: string | string[] | undefined;
  /** Go on after an end of text; absent: no. */
  past_end?: boolean | undefined;
  /** Absent: no. */
  echo?: boolean | undefined;
  /** Absent: no. */
  logprobs?: boolean | undefined;
  /** Absent: no. */
  trace?: boolean | undefined;
  /** Milliseconds after which the best canvas so far is the answer; absent: no deadline. */
  deadline_ms?: number | undefined;
  guidance?: GuidanceRequest | undefined;
}

/** How a request is guided; what is left out is the model's default. */
export interface GuidanceRequest {
  mode: "none" | "rgas";
  /** Scale of the first and of the last tilted step. */
  scale?: number[] | undefined;
  candidates?: number | undefined;
  rerank_ratio?: number | undefined;
}

/** Everything that the tokens depend on, apart from the model. */
export interface SamplingParams {
  /** [L] ids, the mask where text is to be generated. */
  canvas: number[];
  steps: number;
  seed: number;
  temperature: number;
  topK: number;
  topP: number;
  order: Order;
  /** How many samples. */
  samples: number;
  /** Whether each is scored at its end, and the best come first. */
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
 * Tokens that the texts of a trace hold at most, each counted as SHORTEST_TRACED at least: 1,024 steps of a canvas of
 * 256. A trace is one JSON document, and turning it into text takes the event loop some milliseconds for each megabyte.
 */
const MOST_TRACED = 2 ** 18;
const SHORTEST_TRACED = 64;

/** A fresh seed: 48 random bits, so that every JSON reader keeps it exactly. */
export function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}

/** Milliseconds that a budget would take from now on, for so many samples of `length` tokens, those given included. */
export type ForecastFor = (budget: Budget, samples: number, length: number) => number;

const refuse = (path: string, message: string) => new InvalidRequestError([{ path, message }]);

/** Lays out the canvas and settles the budget. Throws InvalidRequestError with the field at fault. */
export function prepare(model: Model, request: GenerateRequest, forecast: ForecastFor): PreparedRequest {
  const layout = layoutOf(model, request);
  const { canvas } = layout;
  if (request.echo && !layout.continues)
    throw refuse("/echo", "has no effect without a prompt: the text of a template is always whole");
  const order = request.order ?? "random";
  const asked = prepareGuidance(model, request.guidance);
  if (asked && order === "confidence")
    throw refuse("/order", "guidance works in random order: use order random, or guidance mode none");
  const { n, samples, ranked } = countOf(model, request);
  const generated = maskedPositions(canvas, model.manifest.mask_token_id).length;
  const { steps, guidance } = settleBudget(model, request, asked, generated, (budget) =>
    forecast(budget, samples, canvas.length),
  );
  const { seed = drawSeed(), top_k: topK = 0, top_p: topP = 1 } = request;
  const temperature = request.temperature ?? (guidance && model.manifest.guidance?.temperature) ?? 1;
  const { stop = [], past_end: pastEnd = false, echo = false, logprobs = false, trace = false } = request;
  const texts = samples * steps;
  if (trace && texts * Math.max(canvas.length, SHORTEST_TRACED) > MOST_TRACED)
    throw refuse(
      "/trace",
      `would hold ${texts} texts of ${canvas.length} tokens, ${SHORTEST_TRACED} at least, and holds ${MOST_TRACED} ` +
        "tokens at most: ask for fewer steps or samples, or stream the steps instead",
    );
  return {
    params: { canvas, steps, seed, temperature, topK, topP, order, samples, ranked, guidance },
    output: { layout, n, stop: typeof stop === "string" ? [stop] : stop, pastEnd, echo, logprobs, trace },
    deadlineMs: request.deadline_ms,
  };
}

/** How many samples are answered and generated. */
function countOf(model: Model, { n = 1, best_of }: GenerateRequest) {
  if (best_of === undefined) return { n, samples: n, ranked: false };
  if (best_of < n) throw refuse("/best_of", `must be at least n, which is ${n}`);
  if (!model.manifest.guidance)
    throw refuse("/best_of", `${model.manifest.name} has no discriminator to rank by: leave it out`);
  return { n, samples: best_of, ranked: true };
}

/** The budget asked for, or the best there is time for. Throws InvalidRequestError if there is no deadline to go by. */
function settleBudget(
  model: Model,
  { steps, deadline_ms, guidance, order }: GenerateRequest,
  asked: Guidance | undefined,
  generated: number,
  forecast: Forecast,
): Budget {
  if (steps !== "auto") return { steps, guidance: asked };
  if (deadline_ms === undefined)
    throw refuse("/deadline_ms", "is required when steps is auto: the budget is what there is time for");
  const free = guidance === undefined && order !== "confidence" && model.manifest.guidance !== undefined;
  const ways = free ? [undefined, prepareGuidance(model, { mode: "rgas" })] : [asked];
  return chooseBudget(ways, model.manifest.quality ?? [], generated, deadline_ms, forecast);
}

/** The guidance of a request, filled up with the model's defaults; undefined for the plain sampler. */
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
