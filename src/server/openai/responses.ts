/** The engine's answers in the shapes of OpenAI's API. */

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
 * Return the log-probabilities of the tokens that begin in the characters [from, to) of the answer. The first
 * token comes after what is echoed.
 */
export function logprobsOf(
  { tokens, logprobs }: { tokens: readonly number[]; logprobs: readonly number[] },
  tokenizer: Tokenizer,
  { text, open }: Echoed,
  [from, to]: readonly [number, number],
): NonNullable<Choice["logprobs"]> {
  const shown: NonNullable<Choice["logprobs"]> = {
    tokens: [],
    token_logprobs: [],
    top_logprobs: null,
    text_offset: [],
  };
  const start = lengthOf(text);
  for (const [i, character] of tokenizer.characterOf(tokens, open).entries()) {
    const at = start + character;
    if (at < from || at >= to) continue;
    shown.tokens.push(tokenizer.tokenText(tokens[i]!));
    shown.token_logprobs.push(logprobs[i]!);
    shown.text_offset.push(at);
  }
  return shown;
}

/** Return the choices of one prompt, the first of which has index `first`. */
export function choicesOf(answer: Answer, prompted: Prompted, first: number, tokenizer: Tokenizer): Choice[] {
  const echoed = echoedOf(prompted, tokenizer);
  return answer.samples.map((sample, i) => {
    const { tokens, logprobs } = sample;
    const text = inside(sample.text, prompted);
    const all: [number, number] = [0, lengthOf(text)];
    return {
      index: first + i,
      text,
      logprobs: logprobs ? logprobsOf({ tokens, logprobs }, tokenizer, echoed, all) : null,
      finish_reason: finishReason(sample),
    };
  });
}

/** Return the number of tokens of all prompts together. */
export function usageOf(answers: readonly Answer[]): NonNullable<Schemas["CompletionResponse"]["usage"]> {
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
