/** The engine's answers in the shapes of OpenAI's API. */

import type { Reveal, TokenLogprob } from "../../diffusion/canvas.ts";
import type { Answer, SampleResult } from "../../engine/answers/answer.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";
import type { Problem } from "../problem.ts";
import { type Echoed, echoedOf, inside, type Prompted } from "./requests.ts";

type Choice = Schemas["CompletionChoice"];

/** Return why a sample ended, as one of OpenAI's reasons. */
export function finishReason({ finish_reason }: SampleResult): "stop" | "length" {
  return finish_reason === "stop" ? "stop" : "length";
}

/** Return how many characters a text has: code points, as in Python. */
export function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) length++;
  return length;
}

/**
 * Tokens in order, each with its log-probability and, if asked for, with the most likely tokens in its place.
 */
export type TokenColumn = readonly Pick<Reveal, "token" | "logprob" | "top">[];

/** Return the most likely tokens as a map from their texts; the token itself is always among them. */
function topOf(
  { token, logprob, top = [] }: TokenColumn[number],
  tokenizer: Tokenizer,
): Record<string, number> {
  return Object.fromEntries(
    [...top, { token, logprob }].map((one) => [tokenizer.tokenName(one.token), one.logprob]),
  );
}

/** Tokens of a part of an answer. */
export interface PartTokens {
  /** `at`: the character of the answer in which the token begins. */
  tokens: (TokenColumn[number] & { at: number })[];
  /** True if alternatives are asked for. */
  hasTop: boolean;
}

/** A part of one choice, or all of it; a shape writes it as its API does. */
export interface Part {
  index: number;
  text: string;
  /** Null if log-probabilities are not asked for. */
  logprobs: PartTokens | null;
  finish_reason: "stop" | "length" | null;
}

/**
 * Return the tokens that begin in the characters [from, to) of the answer. The first token is that of a
 * scored prompt, or comes after what is echoed.
 */
export function tokensIn(
  column: TokenColumn,
  tokenizer: Tokenizer,
  { text, open }: Echoed,
  [from, to]: readonly [number, number],
): PartTokens {
  const start = lengthOf(text);
  const characters = tokenizer.characterOf(
    column.map(({ token }) => token),
    open,
  );
  return {
    tokens: column
      .map((token, i) => ({ ...token, at: start + characters[i]! }))
      .filter(({ at }) => at >= from && at < to),
    hasTop: column.some(({ top }) => top !== undefined),
  };
}

/** Return a part of a completion. */
export function completionChoice({ logprobs, ...part }: Part, tokenizer: Tokenizer): Choice {
  if (!logprobs) return { ...part, logprobs };
  const { tokens, hasTop } = logprobs;
  return {
    ...part,
    logprobs: {
      tokens: tokens.map(({ token }) => tokenizer.tokenText(token)),
      token_logprobs: tokens.map(({ logprob }) => logprob),
      top_logprobs: hasTop ? tokens.map((token) => topOf(token, tokenizer)) : null,
      text_offset: tokens.map(({ at }) => at),
    },
  };
}

/** A scored prompt begins the answer itself. */
export const NOTHING_ECHOED: Echoed = { text: "", open: new Uint8Array(0) };

/**
 * Return the choices of one prompt, the first of which has index `first`. `scores`: those of the prompt, if
 * it is scored.
 */
export function choicesOf(
  { samples }: Pick<Answer, "samples">,
  prompted: Prompted,
  first: number,
  tokenizer: Tokenizer,
  scores?: readonly Reveal[],
): Part[] {
  const echoed = scores ? NOTHING_ECHOED : echoedOf(prompted, tokenizer);
  return samples.map((sample, i) => {
    const { tokens, logprobs, top_logprobs } = sample;
    const text = inside(sample.text, prompted);
    const all: [number, number] = [0, lengthOf(text)];
    const column = logprobs && [...(scores ?? []), ...columnOf(tokens, logprobs, top_logprobs)];
    return {
      index: first + i,
      text,
      logprobs: column ? tokensIn(column, tokenizer, echoed, all) : null,
      finish_reason: finishReason(sample),
    };
  });
}

const columnOf = (
  tokens: readonly number[],
  logprobs: readonly number[],
  top?: readonly TokenLogprob[][],
): TokenColumn => tokens.map((token, i) => ({ token, logprob: logprobs[i]!, ...(top && { top: top[i]! }) }));

/** Return the answer to a prompt that is only scored: `n` samples of the prompt alone. */
export function scoredAlone(
  prompted: Prompted,
  n: number,
  tokenizer: Tokenizer,
): Pick<Answer, "samples" | "usage"> {
  const { text } = echoedOf(prompted, tokenizer);
  const none = { text, tokens: [], logprobs: [], finish_reason: "length" as const };
  const passes = { student_passes: 0, discriminator_passes: 0, gradient_passes: 0 };
  return {
    samples: Array.from({ length: n }, (_, sample) => ({ sample, ...none })),
    usage: {
      ...{ prompt_tokens: prompted.scored?.ids.length ?? 0, completion_tokens: 0, steps: 0, steps_done: 0 },
      ...passes,
    },
  };
}

/** Return the number of tokens of all prompts together. */
export function usageOf(
  answers: readonly Pick<Answer, "usage">[],
): NonNullable<Schemas["CompletionResponse"]["usage"]> {
  const sum = (field: "prompt_tokens" | "completion_tokens") =>
    answers.reduce((total, { usage }) => total + usage[field], 0);
  const [prompt_tokens, completion_tokens] = [sum("prompt_tokens"), sum("completion_tokens")];
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}

/** Names of the engine's fields in a completion request. */
const PARAMS: Record<string, string> = {
  length: "max_tokens",
  template: "prompt",
  prompt_tokens: "prompt",
  tokens: "prompt",
  top_logprobs: "logprobs",
  past_end: "ignore_eos",
  quality: "reasoning_effort",
};

/** The same in a chat request. */
const CHAT_PARAMS: Record<string, string> = {
  ...PARAMS,
  length: "max_completion_tokens",
  prompt_tokens: "messages",
  logprobs: "logprobs",
  top_logprobs: "top_logprobs",
};

/** Return a problem of a chat request in the shape of OpenAI's errors. */
export const chatErrorOf = (problem: Problem) => errorOf(problem, CHAT_PARAMS);

/** Return a problem in the shape of OpenAI's errors. `params`: names of the engine's fields. */
export function errorOf(
  { type, status, detail, errors }: Problem,
  params: Readonly<Record<string, string>> = PARAMS,
): Schemas["OpenAIError"] {
  const named = errors?.map(({ path, message }) => {
    const [field = "", ...rest] = path.slice(1).split("/");
    return { param: [params[field] ?? field, ...rest].join("."), message };
  });
  return {
    error: {
      message: named?.map(({ param, message }) => `${param || "the body"} ${message}`).join("; ") ?? detail,
      type: status === 429 ? "rate_limit_error" : status < 500 ? "invalid_request_error" : "server_error",
      param: named?.[0]?.param || null,
      code: type.split(":").at(-1)!,
    },
  };
}
