/** The engine's answers in OpenAI's words. */

import type { Answer, SampleResult } from "../../engine/answer.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";
import type { Problem } from "../problem.ts";
import { inside, type Prompted } from "./requests.ts";

type Choice = Schemas["CompletionChoice"];

/** Those of OpenAI's reasons that there are. */
export function finishReason({ finish_reason }: SampleResult): "stop" | "length" {
  return finish_reason === "stop" ? "stop" : "length";
}

/** The legacy shape: generated tokens up to the end of the text, those of an echoed prompt not among them. */
function logprobsOf(sample: SampleResult, start: number, tokenizer: Tokenizer): Choice["logprobs"] {
  if (!sample.logprobs) return null;
  const tokens = sample.tokens.map((id) => tokenizer.tokenText(id));
  let at = start;
  const text_offset = tokens.map((token) => {
    at += token.length;
    return at - token.length;
  });
  const shown = text_offset.filter((offset) => offset < sample.text.length).length;
  return {
    tokens: tokens.slice(0, shown),
    token_logprobs: sample.logprobs.slice(0, shown),
    top_logprobs: null,
    text_offset: text_offset.slice(0, shown),
  };
}

/** The choices of one prompt, the first of which has index `first`. */
export function choicesOf(answer: Answer, prompted: Prompted, first: number, tokenizer: Tokenizer): Choice[] {
  const { request } = prompted;
  const echoed = request.echo ? (request.prompt ?? tokenizer.decode(request.prompt_tokens!)).length : 0;
  return answer.samples.map((sample, i) => ({
    index: first + i,
    text: inside(sample.text, prompted),
    logprobs: logprobsOf(sample, echoed, tokenizer),
    finish_reason: finishReason(sample),
  }));
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
