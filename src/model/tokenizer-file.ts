/**
 * `tokenizer.json`, reduced to what is known to take time in proportion to the text.
 *
 * Hugging Face's format may hold regular expressions of its author (`Split`, `Replace`), and one such as `(a+)+$` takes
 * for ever on a short prompt. It would stop the whole server, since prompts are tokenised in its event loop. So the ways
 * to split and to normalise a text are those listed here, and everything else that a file may ask for is refused, or left
 * out where it changes no id.
 */

import { createAjv } from "../json-schema.ts";

/** What `Tokenizer` is made from. */
export interface TokenizerDefinition {
  model: { type: "BPE"; vocab: Record<string, number>; merges: (string | [string, string])[] };
  pre_tokenizer: object;
  normalizer: object | null;
  [part: string]: unknown;
}

/**
 * Most bytes of a token. Merging costs time in proportion to the length of tokens; the longest of known vocabularies
 * have 128.
 */
const LONGEST_TOKEN = 256;

/** The expressions that known vocabularies were made with: each is linear (test/fuzz/linear.full.ts). */
export const PATTERNS = {
  "GPT-2": String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  "Llama 3": String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  "Qwen 2": String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
} as const;

const flag = { type: "boolean" };

const BYTE_LEVEL = {
  type: "object",
  additionalProperties: false,
  required: ["type"],
  properties: {
    type: { const: "ByteLevel" },
    add_prefix_space: flag,
    trim_offsets: flag,
    use_regex: flag,
  },
};

const SPLIT = {
  type: "object",
  additionalProperties: false,
  required: ["type", "pattern", "behavior", "invert"],
  properties: {
    type: { const: "Split" },
    pattern: {
      type: "object",
      additionalProperties: false,
      required: ["Regex"],
      properties: { Regex: { enum: Object.values(PATTERNS) } },
    },
    behavior: { const: "Isolated" },
    invert: { const: false },
  },
};

const isPreTokenizer = createAjv().compile({
  anyOf: [
    BYTE_LEVEL,
    {
      type: "object",
      additionalProperties: false,
      required: ["type", "pretokenizers"],
      properties: {
        type: { const: "Sequence" },
        pretokenizers: { type: "array", prefixItems: [SPLIT, BYTE_LEVEL], minItems: 2, maxItems: 2 },
      },
    },
  ],
});

const isNormalizer = createAjv().compile({
  type: "object",
  additionalProperties: false,
  required: ["type"],
  properties: { type: { enum: ["NFC", "NFD", "NFKC", "NFKD"] } },
});

const isModel = createAjv().compile<TokenizerDefinition["model"]>({
  type: "object",
  required: ["type", "vocab", "merges"],
  properties: {
    type: { const: "BPE" },
    vocab: { type: "object", additionalProperties: { type: "integer", minimum: 0 } },
    merges: {
      type: "array",
      items: {
        anyOf: [{ type: "string" }, { type: "array", items: { type: "string" }, minItems: 2, maxItems: 2 }],
      },
    },
    // What would change how tokens are put together, and no byte-level vocabulary has.
    continuing_subword_prefix: { enum: [null, ""] },
    continuing_subword_suffix: { enum: [null, ""] },
    end_of_word_suffix: { enum: [null, ""] },
    byte_fallback: { enum: [null, false] },
    ignore_merges: { type: ["boolean", "null"] },
  },
});

/** What of a value that is refused may stand in an error: one short line. */
const shown = (value: unknown) => {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
};

/**
 * Parse the text of a `tokenizer.json`. Throws Error saying which part cannot be used: it must be a byte-level BPE with
 * ids below `vocabSize`, split as a known vocabulary is.
 */
export function parseTokenizer(text: string, vocabSize: number): TokenizerDefinition {
  const definition = JSON.parse(text);
  if (definition?.model?.type !== "BPE" || definition?.decoder?.type !== "ByteLevel")
    throw new Error("it is not a byte-level BPE");
  const { model, pre_tokenizer, normalizer = null } = definition;
  if (!isPreTokenizer(pre_tokenizer))
    throw new Error(
      `its pre_tokenizer is none of those known to end on every text: ByteLevel, or a Split by the expression of ${Object.keys(PATTERNS).join(", ")} before it; it is ${shown(pre_tokenizer)}`,
    );
  if (normalizer !== null && !isNormalizer(normalizer))
    throw new Error(`its normalizer must be null, NFC, NFD, NFKC or NFKD; it is ${shown(normalizer)}`);
  if (!isModel(model)) {
    const { instancePath, message } = isModel.errors!.at(-1)!;
    throw new Error(`its model${shown(instancePath).slice(1, -1)} ${message}`);
  }
  for (const [token, id] of Object.entries(model.vocab)) {
    if (id >= vocabSize) throw new Error(`id ${id} is outside the vocabulary of ${vocabSize}`);
    // Each character of a token stands for a byte.
    if (token.length > LONGEST_TOKEN)
      throw new Error(`the token with id ${id} has more than ${LONGEST_TOKEN} bytes`);
  }
  const { vocab, merges, ignore_merges } = model as TokenizerDefinition["model"] & {
    ignore_merges?: boolean;
  };
  return {
    normalizer,
    pre_tokenizer,
    model: { type: "BPE", vocab, merges, ...(ignore_merges ? { ignore_merges } : {}) },
    // Ids become text by their bytes (byte-level.ts), special tokens never come from text, and a prompt is not wrapped.
    decoder: null,
    added_tokens: [],
    post_processor: null,
  };
}
