/** Hints for fields that a client misspelled, or knows by the name of another API. */

import type { ErrorObject } from "ajv";
import { closest, distance } from "fastest-levenshtein";

/** Names that other APIs have for a field of this one. */
const SYNONYMS: Record<string, readonly string[]> = {
  length: ["max_tokens", "max_new_tokens", "max_completion_tokens", "max_length", "n_predict", "num_tokens"],
  max_tokens: ["length", "max_new_tokens", "max_completion_tokens", "max_length", "n_predict"],
  steps: ["num_steps", "num_inference_steps", "sampling_steps", "diffusion_steps", "nfe"],
  prompt: ["input", "inputs", "text", "query", "content"],
  prompt_tokens: ["input_ids", "prompt_token_ids"],
  stop: ["stop_sequences", "stop_strings", "stop_words"],
  n: ["num_return_sequences", "num_samples", "samples", "num_generations"],
  seed: ["random_seed", "manual_seed"],
  deadline_ms: ["deadline", "timeout", "timeout_ms", "max_time"],
  guidance: ["guidance_mode", "guidance_scale", "cfg_scale"],
  logprobs: ["return_logprobs", "output_scores"],
};

/** Advice for fields of other APIs that a field here replaces only in part, by the name of the field. */
const ADVICE: Record<string, string> = {
  messages: "belongs to chat, and this model continues text: send the text as prompt",
  stream: "is not a field of this request: send Accept: text/event-stream instead",
  do_sample: "is not a field of this request: temperature 0 disables sampling",
};

/** Largest share of a name's characters that a misspelled field may differ in. */
const MOST_DIFFERENT = 0.4;

/** Return a name without case and separators: `topK`, `top-k` and `top_k` are the same. */
const plain = (name: string) => name.replaceAll(/[-_\s]/g, "").toLowerCase();

/** Return the message for a field that a schema with the fields `known` does not have. */
export function unknownField(name: string, known: readonly string[]): string {
  const [asked, names] = [plain(name), known.map(plain)];
  const synonym = known.find((field) => SYNONYMS[field]?.some((other) => plain(other) === asked));
  if (synonym !== undefined) return `is called ${synonym} here`;
  if (Object.hasOwn(ADVICE, name)) return ADVICE[name]!;
  const unknown = "is not a field of this request";
  if (names.length === 0) return unknown;
  const nearest = closest(asked, names);
  const near = distance(asked, nearest) <= MOST_DIFFERENT * Math.max(asked.length, nearest.length);
  return near ? `${unknown}: did you mean ${known[names.indexOf(nearest)]}?` : unknown;
}

/**
 * Return the object with one required field that a text stands for, as JSON: `{"mode":"rgas"}` for `"rgas"`;
 * undefined for errors of other kinds. The error needs Ajv's option `verbose`.
 */
export function objectFor({ keyword, data, params, parentSchema }: ErrorObject): string | undefined {
  if (keyword !== "type" || params.type !== "object" || typeof data !== "string") return undefined;
  const required: string[] = parentSchema?.required ?? [];
  const [field] = required;
  if (field === undefined || required.length > 1) return undefined;
  const allowed: unknown[] = parentSchema?.properties?.[field]?.enum ?? [];
  return allowed.length === 0
    ? undefined
    : JSON.stringify({ [field]: allowed.includes(data) ? data : allowed[0] });
}
