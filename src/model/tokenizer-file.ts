/**
 * Parse `tokenizer.json`, reduced to operations that take time linear in the text.
 *
 * Hugging Face's format may contain any regular expression (`Split`, `Replace`), and one such as `(a+)+$`
 * takes practically for ever on a short prompt. It would block the server, which tokenises in its event loop.
 * So only the ways to split and normalise listed here are allowed. Everything else is refused, or dropped if
 * it changes no id.
 */

import { createAjv } from "../json-schema.ts";

/** The parts of `tokenizer.json` that `Tokenizer` uses. */
export interface TokenizerDefinition {
  model: { type: "BPE"; vocab: Record<string, number>; merges: (string | [string, string])[] };
  pre_tokenizer: object;
  normalizer: object | null;
  [part: string]: unknown;
}

/**
 * Upper bound of a token, bytes. The time of merging grows with the length of tokens; the longest in known
 * vocabularies have 128.
 */
const MAX_TOKEN_BYTES = 256;

/** The split expression of Llama 3, and with other DIGITS of Qwen 2. */
const LLAMA =
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS` +
  String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

/** The split expressions of known vocabularies. Each takes linear time (test/fuzz/linear.full.ts). */
export const PATTERNS = {
  "GPT-2": String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  "Llama 3": LLAMA.replace("DIGITS", String.raw`\p{N}{1,3}`),
  "Qwen 2": LLAMA.replace("DIGITS", String.raw`\p{N}`),
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
    // Options that would change how tokens are joined; byte-level vocabularies do not use them.
    continuing_subword_prefix: { enum: [null, ""] },
    continuing_subword_suffix: { enum: [null, ""] },
    end_of_word_suffix: { enum: [null, ""] },
    byte_fallback: { enum: [null, false] },
    ignore_merges: { type: ["boolean", "null"] },
  },
});

/** Return a refused value as one short line for an error. */
const shown = (value: unknown) => {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
};

/**
 * Parse the text of a `tokenizer.json`. It must be a byte-level BPE with ids below `vocabSize` and a known
 * way to split. Throws Error naming the part that cannot be used.
 */
export function parseTokenizer(text: string, vocabSize: number): TokenizerDefinition {
  const definition = JSON.parse(text);
  if (definition?.model?.type !== "BPE" || definition?.decoder?.type !== "ByteLevel")
    throw new Error("it is not a byte-level BPE");
  const { model, pre_tokenizer, normalizer = null } = definition;
  if (!isPreTokenizer(pre_tokenizer))
    throw new Error(
      "its pre_tokenizer is not one that is known to take linear time: ByteLevel, or a Split by the " +
        `expression of ${Object.keys(PATTERNS).join(", ")} before it; it is ${shown(pre_tokenizer)}`,
    );
  if (normalizer !== null && !isNormalizer(normalizer))
    throw new Error(`its normalizer must be null, NFC, NFD, NFKC or NFKD; it is ${shown(normalizer)}`);
  if (!isModel(model)) {
    const { instancePath, message } = isModel.errors!.at(-1)!;
    throw new Error(`its model${shown(instancePath).slice(1, -1)} ${message}`);
  }
  for (const [token, id] of Object.entries(model.vocab)) {
    if (id >= vocabSize) throw new Error(`id ${id} is outside the vocabulary of ${vocabSize}`);
    // Each character of a token is one byte.
    if (token.length > MAX_TOKEN_BYTES)
      throw new Error(`the token with id ${id} has more than ${MAX_TOKEN_BYTES} bytes`);
  }
  const { vocab, merges, ignore_merges } = model as TokenizerDefinition["model"] & {
    ignore_merges?: boolean;
  };
  return {
    normalizer,
    pre_tokenizer,
    model: { type: "BPE", vocab, merges, ...(ignore_merges ? { ignore_merges } : {}) },
    // Ids are decoded by byte-level.ts, special tokens never come from text, and prompts are not wrapped.
    decoder: null,
    added_tokens: [],
    post_processor: null,
  };
}
