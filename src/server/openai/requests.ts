/** A completion request as requests of the engine: one for each prompt. */

import type { GenerateRequest } from "../../engine/request.ts";
import { invalid } from "../../errors.ts";
import type { Model } from "../../model/model.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";

type CompletionRequest = Schemas["CompletionRequest"];

/**
 * A request of the engine, and the text around the completion in the engine's answer, which is cut off again.
 */
export interface Prompted {
  request: GenerateRequest;
  /** Ids of the prompt, and the request for their log-probabilities, if those are asked for. */
  scored?: { ids: number[]; request: GenerateRequest };
  prefix: string;
  suffix: string;
}

/** New tokens, and steps, of a request that does not say. */
const DEFAULT_LENGTH = 16;
const DEFAULT_STEPS = 16;

/** Return the prompts, each a text or ids. */
function promptsOf(prompt: CompletionRequest["prompt"]): (string | number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as string[] | number[][]);
}

/** Return the number of alternatives that the answer has for each token. */
const alternativesOf = ({ logprobs }: CompletionRequest) => Number(logprobs ?? 0);

/** Return true if log-probabilities are asked for. */
const hasLogprobs = ({ logprobs }: CompletionRequest) => logprobs != null && logprobs !== false;

/** Throw InvalidRequestError for fields that cannot be combined. */
function checkTogether(body: CompletionRequest): void {
  const { diffusing, stream, stream_options, max_tokens } = body;
  if (max_tokens === 0 && !(body.echo && hasLogprobs(body)))
    throw invalid("/max_tokens", "is 0: ask for at least 1, or score the prompt with echo true and logprobs");
  if (diffusing && hasLogprobs(body))
    throw invalid(
      "/logprobs",
      "cannot be combined with diffusing, whose chunks are whole texts: read the steps of /generate",
    );
  if (stream_options?.include_usage && !stream)
    throw invalid(
      "/stream_options",
      "include_usage has no effect without stream: the answer has usage anyway",
    );
  if (diffusing && !stream) throw invalid("/diffusing", "has no effect without stream: set stream to true");
}

/** Return how many samples to rank; undefined if they are not ranked. The best n of n are all of them. */
export function ranked({ n, best_of }: CompletionRequest): number | undefined {
  return best_of == null || best_of === (n ?? 1) ? undefined : best_of;
}

/**
 * Return the request that scores a prompt: an echoed prompt has log-probabilities too. Undefined if they are
 * not asked for, or the prompt is empty. Throws InvalidRequestError for a prompt that is too long.
 */
function scoredOf(
  body: CompletionRequest,
  prompt: string | number[],
  { tokenizer, manifest }: Model,
): Prompted["scored"] {
  if (!body.echo || !hasLogprobs(body)) return undefined;
  const { context_length: context, name } = manifest;
  const ids = typeof prompt === "string" ? tokenizer.encode(prompt, context, "/prompt") : prompt;
  if (!ids || ids.length > context) {
    const size = ids ? `${ids.length}` : `more than ${context}`;
    const message = `has ${size} tokens, and ${name} has a context of ${context}: shorten it`;
    throw invalid("/prompt", message, true);
  }
  if (ids.length === 0 && body.max_tokens === 0)
    throw invalid("/prompt", "is empty: there is nothing to score");
  if (ids.length === 0) return undefined;
  const scored = ids.map((token, position) => ({
    canvas: ids.with(position, manifest.mask_token_id),
    position,
    token,
  }));
  return { ids, request: { scored, top_logprobs: alternativesOf(body), steps: 1 } };
}

/** Quality of each effort of OpenAI's API. */
const EFFORTS = {
  minimal: "draft",
  low: "draft",
  medium: "normal",
  high: "best",
  xhigh: "best",
} as const;

/** Return the step budget, a number or a quality. */
function budgetOf({
  steps,
  reasoning_effort: effort,
}: CompletionRequest): Pick<GenerateRequest, "steps" | "quality"> {
  if (effort == null || effort === "none") return { steps: steps ?? DEFAULT_STEPS };
  if (steps == null) return { steps: "auto", quality: EFFORTS[effort] };
  throw invalid("/reasoning_effort", "has no effect beside a number of steps: leave one out");
}

/** Return the requests of the engine. Throws InvalidRequestError for fields that cannot be combined. */
export function requestsOf(body: CompletionRequest, model: Model): Prompted[] {
  checkTogether(body);
  const length = body.max_tokens ?? DEFAULT_LENGTH;
  const shared = {
    ...budgetOf(body),
    seed: body.seed ?? undefined,
    temperature: body.temperature ?? undefined,
    top_k: body.top_k == null ? undefined : Math.max(0, body.top_k),
    top_p: body.top_p ?? undefined,
    n: body.n ?? 1,
    best_of: ranked(body),
    rank_by: body.rank_by ?? undefined,
    stop: body.stop ?? undefined,
    past_end: body.ignore_eos ?? false,
    logprobs: hasLogprobs(body),
    top_logprobs: alternativesOf(body),
    order: body.order ?? undefined,
    threshold: body.threshold ?? undefined,
    entropy_budget: body.entropy_budget ?? undefined,
    block_length: body.block_length ?? undefined,
    remask: body.remask ?? undefined,
    early_stop: !body.ignore_eos && ranked(body) === undefined,
    guidance: body.guidance ?? undefined,
  };
  return promptsOf(body.prompt).map((prompt): Prompted => {
    if (!body.suffix) {
      const canvas = typeof prompt === "string" ? { prompt } : { prompt_tokens: prompt };
      const request = { ...shared, ...canvas, length, echo: body.echo ?? false };
      const scored = scoredOf(body, prompt, model);
      return { request, prefix: "", suffix: "", ...(scored && { scored }) };
    }
    if (typeof prompt !== "string") throw invalid("/suffix", "needs a prompt that is text, not ids");
    if (body.echo)
      throw invalid("/echo", "has no effect with a suffix, where the completion fills a gap: leave it out");
    for (const [path, text] of Object.entries({ "/prompt": prompt, "/suffix": body.suffix }))
      if (/\{\{(mask|choice)/.test(text))
        throw invalid(path, "cannot hold {{mask or {{choice with a suffix: POST a template to /generate");
    const template = `${prompt}{{mask:${length}}}${body.suffix}`;
    return { request: { ...shared, template }, prefix: prompt, suffix: body.suffix };
  });
}

/** Return the completion inside a text of the engine. */
export function inside(text: string, { prefix, suffix }: Prompted): string {
  return text.slice(prefix.length, text.length - suffix.length);
}

/** What an answer begins with if the prompt is echoed. */
export interface Echoed {
  text: string;
  /** Bytes at the end of the prompt's ids that belong to the first generated character. */
  open: Uint8Array;
}

/** Return what the answer begins with; nothing if the prompt is not echoed. */
export function echoedOf({ request }: Prompted, tokenizer: Tokenizer): Echoed {
  const { text, after } =
    request.prompt_tokens === undefined
      ? { text: request.prompt ?? "", after: new Uint8Array(0) }
      : tokenizer.decodeOpen(request.prompt_tokens, false, true);
  return { text: request.echo ? text : "", open: after };
}
