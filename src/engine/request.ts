/** From what a client asks for to what the sampler needs, checked against the model. */

import { randomInt } from "node:crypto";
import type { Guidance } from "../diffusion/guidance.ts";
import type { Order } from "../diffusion/sampler.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import { type Budget, chooseBudget, type Forecast } from "./budget.ts";

/** A request as the face hands it over: types and ranges are already checked. */
export interface GenerateRequest {
  /** Either this or `prompt_tokens`. */
  prompt?: string | undefined;
  /** The prompt as ids; the mask is not among them. */
  prompt_tokens?: number[] | undefined;
  /** New tokens; absent: DEFAULT_LENGTH or what the prompt leaves of the context. */
  length?: number | undefined;
  /** Step budget, 1 to 1,024; or the best that the deadline has time for. */
  steps: number | "auto";
  /** Integer in [0, 2^53); absent: drawn. */
  seed?: number | undefined;
  /** 0 takes the most likely token. */
  temperature: number;
  /** 0 or absent: all tokens. */
  top_k?: number | undefined;
  /** In (0, 1]; absent: 1. */
  top_p?: number | undefined;
  /** Absent: random. */
  order?: Order | undefined;
  /** Samples of the same prompt; absent: 1. */
  n?: number | undefined;
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

/** A request that fits the model. */
export interface PreparedRequest {
  promptTokens: number[];
  length: number;
  steps: number;
  seed: number;
  temperature: number;
  topK: number;
  topP: number;
  order: Order;
  n: number;
  deadlineMs: number | undefined;
  guidance: Guidance | undefined;
}

/** A run of masks on a canvas: its first position, counted from the start of the canvas, and how many there are. */
export interface MaskSpan {
  start: number;
  length: number;
}

/** Where a request's canvas is masked at first, in order. */
export function maskSpans({ promptTokens, length }: PreparedRequest): MaskSpan[] {
  return [{ start: promptTokens.length, length }];
}

const DEFAULT_LENGTH = 128;

/** A fresh seed: 48 random bits, so that every JSON reader keeps it exactly. */
export function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}

/** Milliseconds that a budget would take from now on, for `n` samples of `length` tokens, prompt included. */
export type ForecastFor = (budget: Budget, n: number, length: number) => number;

/** Tokenises the prompt, fits the canvas and settles the budget. Throws InvalidRequestError with the field at fault. */
export function prepare(model: Model, request: GenerateRequest, forecast: ForecastFor): PreparedRequest {
  const context = model.manifest.context_length;
  const promptTokens = promptOf(model, request);
  const room = context - promptTokens.length;
  const length = request.length ?? Math.min(DEFAULT_LENGTH, room);
  if (length > room) {
    const message = `${length} new tokens and a prompt of ${promptTokens.length} do not fit the context of ${context}: at most ${room}`;
    throw new InvalidRequestError([{ path: "/length", message }]);
  }
  const order = request.order ?? "random";
  const n = request.n ?? 1;
  const asked = prepareGuidance(model, request.guidance);
  if (asked && order === "confidence") {
    const message = "guidance works in random order: use order random, or guidance mode none";
    throw new InvalidRequestError([{ path: "/order", message }]);
  }
  const { steps, guidance } = settleBudget(model, request, asked, length, (budget) =>
    forecast(budget, n, promptTokens.length + length),
  );
  return {
    promptTokens,
    length,
    steps,
    seed: request.seed ?? drawSeed(),
    temperature: request.temperature,
    topK: request.top_k ?? 0,
    topP: request.top_p ?? 1,
    order,
    n,
    deadlineMs: request.deadline_ms,
    guidance,
  };
}

/** The budget asked for, or the best there is time for. Throws InvalidRequestError if there is no deadline to go by. */
function settleBudget(
  model: Model,
  { steps, deadline_ms, guidance, order }: GenerateRequest,
  asked: Guidance | undefined,
  length: number,
  forecast: Forecast,
): Budget {
  if (steps !== "auto") return { steps, guidance: asked };
  if (deadline_ms === undefined) {
    const message = "is required when steps is auto: the budget is what there is time for";
    throw new InvalidRequestError([{ path: "/deadline_ms", message }]);
  }
  const free = guidance === undefined && order !== "confidence" && model.manifest.guidance !== undefined;
  const ways = free ? [undefined, prepareGuidance(model, { mode: "rgas" })] : [asked];
  return chooseBudget(ways, model.manifest.quality ?? [], length, deadline_ms, forecast);
}

/** The prompt's ids. Throws InvalidRequestError if there is none or two, or it does not fit the model. */
function promptOf({ manifest, tokenizer }: Model, { prompt, prompt_tokens }: GenerateRequest): number[] {
  const { context_length: context, mask_token_id: mask, name } = manifest;
  const refuse = (path: string, message: string, tooLarge = false) =>
    new InvalidRequestError([{ path, message }], tooLarge);
  if (prompt !== undefined && prompt_tokens !== undefined)
    throw refuse("/prompt_tokens", "the prompt is given twice: leave out /prompt or /prompt_tokens");
  if (prompt === undefined && prompt_tokens === undefined)
    throw refuse("/prompt", "is missing: give the text to continue, or its ids in /prompt_tokens");
  const wrong = prompt_tokens?.findIndex((id) => id >= mask) ?? -1;
  if (wrong >= 0) throw refuse(`/prompt_tokens/${wrong}`, `must be an id below ${mask}, the mask of ${name}`);
  const ids = prompt_tokens ?? tokenizer.encode(prompt!, context);
  if (ids !== undefined && ids.length < context) return [...ids];
  const size = ids ? `${ids.length}` : `more than ${context}`;
  const path = prompt_tokens ? "/prompt_tokens" : "/prompt";
  throw refuse(
    path,
    `the prompt has ${size} tokens, and ${name} has a context of ${context}: shorten it`,
    true,
  );
}

/** The guidance of a request, filled up with the model's defaults; undefined for the plain sampler. */
function prepareGuidance(model: Model, request: GuidanceRequest | undefined): Guidance | undefined {
  if (!request) return undefined;
  const { mode, ...settings } = request;
  if (mode === "none") {
    const given = Object.entries(settings).find(([, value]) => value !== undefined);
    if (!given) return undefined;
    const message = "has no effect without guidance: leave it out, or set /guidance/mode to rgas";
    throw new InvalidRequestError([{ path: `/guidance/${given[0]}`, message }]);
  }
  const defaults = model.manifest.guidance;
  if (!defaults) {
    const message = `${model.manifest.name} has no discriminator to guide with: use mode none, or another model`;
    throw new InvalidRequestError([{ path: "/guidance/mode", message }]);
  }
  const [scaleStart, scaleEnd] = settings.scale ?? [defaults.scale_start, defaults.scale_end];
  return {
    candidates: settings.candidates ?? defaults.candidates,
    scaleStart: scaleStart!,
    scaleEnd: scaleEnd!,
    rerankRatio: settings.rerank_ratio ?? defaults.rerank_ratio,
  };
}
