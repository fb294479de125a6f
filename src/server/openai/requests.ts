/** A completion request into the engine's requests: one for each prompt. */

import type { GenerateRequest } from "../../engine/request.ts";
import { InvalidRequestError } from "../../errors.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";

type CompletionRequest = Schemas["CompletionRequest"];

/** What stands around the completion in the engine's text; cut off again. */
export interface Prompted {
  request: GenerateRequest;
  prefix: string;
  suffix: string;
}

/** The prompts, each a text or ids. */
function promptsOf(prompt: CompletionRequest["prompt"]): (string | number[])[] {
  if (typeof prompt === "string") return [prompt];
  return typeof prompt[0] === "number" ? [prompt as number[]] : (prompt as string[] | number[][]);
}

/** The requests. Throws InvalidRequestError for fields that cannot stand together. */
export function requestsOf(body: CompletionRequest): Prompted[] {
  const refuse = (path: string, message: string) => new InvalidRequestError([{ path, message }]);
  if (body.diffusing && body.logprobs != null)
    throw refuse(
      "/logprobs",
      "cannot go with diffusing, whose chunks are whole texts: read the steps of /generate",
    );
  if (body.stream_options && !body.stream) throw refuse("/stream_options", "has no effect without stream");
  if (body.diffusing && !body.stream) throw refuse("/diffusing", "has no effect without stream");
  const length = body.max_tokens ?? 16;
  const shared = {
    steps: body.steps ?? 16,
    seed: body.seed ?? undefined,
    temperature: body.temperature ?? undefined,
    top_k: body.top_k ?? 0,
    top_p: body.top_p ?? 1,
    n: body.n ?? 1,
    best_of: body.best_of ?? undefined,
    stop: body.stop ?? undefined,
    logprobs: body.logprobs != null,
    guidance: body.guidance,
  };
  return promptsOf(body.prompt).map((prompt): Prompted => {
    if (!body.suffix) {
      const canvas = typeof prompt === "string" ? { prompt } : { prompt_tokens: prompt };
      return { request: { ...shared, ...canvas, length, echo: body.echo ?? false }, prefix: "", suffix: "" };
    }
    if (typeof prompt !== "string") throw refuse("/suffix", "needs a prompt that is text");
    if (body.echo)
      throw refuse("/echo", "has no effect beside a suffix: the completion is what fills the gap");
    for (const [path, text] of Object.entries({ "/prompt": prompt, "/suffix": body.suffix }))
      if (text.includes("{{mask")) throw refuse(path, "cannot hold {{mask where there is a suffix");
    const template = `${prompt}{{mask:${length}}}${body.suffix}`;
    return { request: { ...shared, template }, prefix: prompt, suffix: body.suffix };
  });
}

/** The completion inside a text of the engine. */
export function inside(text: string, { prefix, suffix }: Prompted): string {
  return text.slice(prefix.length, text.length - suffix.length);
}

/** Characters of the prompt at the start of the answer. */
export function echoedLength({ request }: Prompted, tokenizer: Tokenizer): number {
  if (!request.echo) return 0;
  return (request.prompt ?? tokenizer.decodeOpen(request.prompt_tokens!, false, true).text).length;
}
