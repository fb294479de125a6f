/** A chat request as a completion request, and the answer to it in the shape of OpenAI's chat API. */

import { invalid, NotFoundError } from "../../errors.ts";
import { type ChatMessage, type ChatTemplate, TemplateError } from "../../model/chat.ts";
import type { Manifest } from "../../model/manifest.ts";
import type { Model } from "../../model/model.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";
import type { Part, PartTokens } from "./responses.ts";

type ChatRequest = Schemas["ChatRequest"];

/** New tokens of a request that does not say, if the context has room for them. */
const DEFAULT_LENGTH = 128;

/** Return a message for the template. */
function messageOf({ role, content }: Schemas["ChatMessage"]): ChatMessage {
  return {
    role: role === "developer" ? "system" : role,
    content: typeof content === "string" ? content : content.map(({ text }) => text).join(""),
  };
}

/** Throw NotFoundError if a model has no chat template. */
export function checkChat({ chat, name }: Manifest): void {
  if (chat) return;
  throw new NotFoundError(
    `${name} has no chat template, because it continues text: POST /v1/completions with the text as prompt`,
  );
}

/** Return the chat template of a model. Throws NotFoundError if it has none. */
function chatOf({ chat, manifest }: Model): ChatTemplate {
  checkChat(manifest);
  return chat!;
}

/**
 * Return the ids of a conversation. Throws NotFoundError if the model has no chat template, and
 * InvalidRequestError for messages that its template refuses, or that have more than `limit` tokens.
 */
export function conversationIds(
  messages: readonly Schemas["ChatMessage"][],
  model: Model,
  limit: number,
): number[] {
  const { name } = model.manifest;
  try {
    const ids = chatOf(model).encode(messages.map(messageOf), model.tokenizer, limit);
    if (ids) return ids;
  } catch (error) {
    if (error instanceof TemplateError)
      throw invalid("/messages", `are refused by the chat template of ${name}: ${error.message}`);
    throw error;
  }
  throw invalid("/messages", `have more than ${limit} tokens, and ${name} has room for as many`, true);
}

/** Return the completion request that continues a conversation. Throws what `conversationIds` throws. */
export function completionOf(
  { messages, max_completion_tokens, max_tokens, logprobs, top_logprobs, ...options }: ChatRequest,
  model: Model,
): Schemas["CompletionRequest"] {
  const { context_length: context } = model.manifest;
  const ids = conversationIds(messages, model, context - 1);
  if (max_tokens && max_completion_tokens && max_tokens !== max_completion_tokens)
    throw invalid(
      "/max_tokens",
      `is ${max_tokens}, and max_completion_tokens ${max_completion_tokens}: set one`,
    );
  if (top_logprobs && !logprobs)
    throw invalid("/top_logprobs", "has no effect without logprobs: set it to true");
  return {
    ...options,
    echo: false,
    prompt: ids.length > 0 ? ids : "",
    max_tokens: max_completion_tokens ?? max_tokens ?? Math.min(DEFAULT_LENGTH, context - ids.length),
    // More alternatives than /v1/completions has.
    logprobs: logprobs ? ((top_logprobs ?? 0) as 5) : null,
  };
}

function logprobsOf(logprobs: PartTokens | null, tokenizer: Tokenizer): Schemas["ChatLogprobs"] {
  if (!logprobs) return null;
  const named = ({ token, logprob }: { token: number; logprob: number }) => ({
    token: tokenizer.tokenText(token),
    logprob,
    bytes: [...tokenizer.bytesOf(token)],
  });
  const content = logprobs.tokens.map((one) => ({ ...named(one), top_logprobs: (one.top ?? []).map(named) }));
  return { content, refusal: null };
}

/** Return a finished choice. */
export function messageChoice({ index, text, logprobs, finish_reason }: Part, tokenizer: Tokenizer) {
  const message = { role: "assistant" as const, content: text, refusal: null };
  return { index, message, logprobs: logprobsOf(logprobs, tokenizer), finish_reason };
}

/** Return a part of a choice; `isFirst` of its parts. */
export function deltaChoice(
  { index, text, logprobs, finish_reason }: Part,
  tokenizer: Tokenizer,
  isFirst: boolean,
) {
  const delta = { ...(isFirst && { role: "assistant" as const }), content: text };
  return { index, delta, logprobs: logprobsOf(logprobs, tokenizer), finish_reason };
}
