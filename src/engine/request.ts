/** From what a client asks for to what the sampler needs, checked against the model. */

import { randomInt } from "node:crypto";
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
}

/** A request that fits the model. */
export interface PreparedRequest {
  promptTokens: number[];
  length: number;
  steps: number;
  seed: number;
  temperature: number;
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
  return {
    promptTokens,
    length,
    steps: request.steps,
    seed: request.seed ?? drawSeed(),
    temperature: request.temperature,
  };
}
