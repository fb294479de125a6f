/** From what a client asks for to what the sampler needs, checked against the model. */

import { randomInt } from "node:crypto";
import type { Guidance } from "../diffusion/guidance.ts";
import type { Order } from "../diffusion/sampler.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Model } from "../model/model.ts";

/** A request as the face hands it over: types and ranges are already checked. */
export interface GenerateRequest {
  prompt: string;
  /** New tokens; absent: DEFAULT_LENGTH or what the prompt leaves of the context. */
  length?: number | undefined;
  /** Step budget, 1 to 1,024. */
  steps: number;
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

const DEFAULT_LENGTH = 128;

/** A fresh seed: 48 random bits, so that every JSON reader keeps it exactly. */
export function drawSeed(): number {
  return randomInt(2 ** 48 - 1);
}

/** Tokenises the prompt and fits the canvas. Throws InvalidRequestError with the field at fault. */
export function prepare(model: Model, request: GenerateRequest): PreparedRequest {
  const context = model.manifest.context_length;
  const promptTokens = model.tokenizer.encode(request.prompt, context);
  if (promptTokens === undefined || promptTokens.length >= context) {
    const size = promptTokens ? `${promptTokens.length}` : `more than ${context}`;
    const message = `the prompt has ${size} tokens, and ${model.manifest.name} has a context of ${context}: shorten it`;
    throw new InvalidRequestError([{ path: "/prompt", message }], true);
  }
  const room = context - promptTokens.length;
  const length = request.length ?? Math.min(DEFAULT_LENGTH, room);
  if (length > room) {
    const message = `${length} new tokens and a prompt of ${promptTokens.length} do not fit the context of ${context}: at most ${room}`;
    throw new InvalidRequestError([{ path: "/length", message }]);
  }
  const guidance = prepareGuidance(model, request.guidance);
  const order = request.order ?? "random";
  if (guidance && order === "confidence") {
    const message = "guidance works in random order: use order random, or guidance mode none";
    throw new InvalidRequestError([{ path: "/order", message }]);
  }
  return {
    promptTokens,
    length,
    steps: request.steps,
    seed: request.seed ?? drawSeed(),
    temperature: request.temperature,
    topK: request.top_k ?? 0,
    topP: request.top_p ?? 1,
    order,
    n: request.n ?? 1,
    deadlineMs: request.deadline_ms,
    guidance,
  };
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
