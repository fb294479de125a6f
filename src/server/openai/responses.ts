/** The engine's answers in OpenAI's words. */

import type { Answer, SampleResult } from "../../engine/answers/answer.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";
import type { Problem } from "../problem.ts";
import { echoedLength, inside, type Prompted } from "./requests.ts";

type Choice = Schemas["CompletionChoice"];

/** Those of OpenAI's reasons that there are. */
export function finishReason({ finish_reason }: SampleResult): "stop" | "length" {
  return finish_reason === "stop" ? "stop" : "length";
}

/**
 * The legacy shape, of those tokens that begin in the characters [from, to) of the answer. The first token begins at
 * character `start`: those of an echoed prompt are not among them.
 */
export function logprobsOf(
  { tokens, logprobs }: { tokens: readonly number[]; logprobs: readonly number[] },
  tokenizer: Tokenizer,
  start: number,
  [from, to]: readonly [number, number],
): NonNullable<Choice["logprobs"]> {
  const shown: NonNullable<Choice["logprobs"]> = {
    tokens: [],
    token_logprobs: [],
    top_logprobs: null,
    text_offset: [],
  };
  let at = start;
  for (const [i, id] of tokens.entries()) {
    const text = tokenizer.tokenText(id);
    if (at >= from && at < to) {
      shown.tokens.push(text);
      shown.token_logprobs.push(logprobs[i]!);
      shown.text_offset.push(at);
    }
    at += text.length;
  }
  return shown;
}

/** The choices of one prompt, the first of which has index `first`. */
export function choicesOf(answer: Answer, prompted: Prompted, first: number, tokenizer: Tokenizer): Choice[] {
  const echoed = echoedLength(prompted, tokenizer);
  return answer.samples.map((sample, i) => {
    const { tokens, logprobs } = sample;
    const text = inside(sample.text, prompted);
    return {
      index: first + i,
      text,
      logprobs: logprobs ? logprobsOf({ tokens, logprobs }, tokenizer, echoed, [0, text.length]) : null,
      finish_reason: finishReason(sample),
    };
  });
}

/** Tokens of all prompts together. */
export function usageOf(answers: readonly Answer[]): NonNullable<Schemas["CompletionResponse"]["usage"]> {
  const sum = (field: "prompt_tokens" | "completion_tokens") =>
    answers.reduce((total, { usage }) => total + usage[field], 0);
  const [prompt_tokens, completion_tokens] = [sum("prompt_tokens"), sum("completion_tokens")];
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}

/** What the engine's fields are called here. */
const PARAMS: Record<string, string> = { length: "max_tokens", template: "prompt", prompt_tokens: "prompt" };

/** A problem as OpenAI's clients expect an error. */
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
