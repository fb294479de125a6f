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

/**
 * Return the log-probabilities of the tokens that begin in the characters [from, to) of the answer. The first
 * token is that of a scored prompt, or comes after what is echoed.
 */
export function logprobsOf(
  column: TokenColumn,
  tokenizer: Tokenizer,
  { text, open }: Echoed,
  [from, to]: readonly [number, number],
): NonNullable<Choice["logprobs"]> {
  const hasTop = column.some(({ top }) => top !== undefined);
  const shown = {
    tokens: [] as string[],
    token_logprobs: [] as number[],
    top_logprobs: hasTop ? ([] as Record<string, number>[]) : null,
    text_offset: [] as number[],
  };
  const start = lengthOf(text);
  const characters = tokenizer.characterOf(
    column.map(({ token }) => token),
    open,
  );
  for (const [i, character] of characters.entries()) {
    const at = start + character;
    if (at < from || at >= to) continue;
    shown.tokens.push(tokenizer.tokenText(column[i]!.token));
    shown.token_logprobs.push(column[i]!.logprob);
    shown.top_logprobs?.push(topOf(column[i]!, tokenizer));
    shown.text_offset.push(at);
  }
  return shown;
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
): Choice[] {
  const echoed = scores ? NOTHING_ECHOED : echoedOf(prompted, tokenizer);
  return samples.map((sample, i) => {
    const { tokens, logprobs, top_logprobs } = sample;
    const text = inside(sample.text, prompted);
    const all: [number, number] = [0, lengthOf(text)];
    const column = logprobs && [...(scores ?? []), ...columnOf(tokens, logprobs, top_logprobs)];
    return {
      index: first + i,
      text,
      logprobs: column ? logprobsOf(column, tokenizer, echoed, all) : null,
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
};

/** Return a problem in the shape of OpenAI's errors. */
export function errorOf({ type, status, detail, errors }: Problem): Schemas["OpenAIError"] {
  const named = errors?.map(({ path, message }) => {
    const [field = "", ...rest] = path.slice(1).split("/");
    return { param: [PARAMS[field] ?? field, ...rest].join("."), message };
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
