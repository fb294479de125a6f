/**
 * Parse `tokenizer.json`, reduced to operations that take time linear in the text.
 *
 * Hugging Face's format may contain any regular expression (`Split`, `Replace`), and one such as `(a+)+$`
 * takes practically for ever on a short prompt. It would block the server, which tokenises in its event loop.
 * So only the ways to split and normalise listed here are allowed. Everything else is refused, or dropped if
 * it changes no id.
 */

import { createAjv } from "../json-schema.ts";

/** A token outside the model's table. */
interface AddedToken {
  id: number;
  content: string;
  /** Default: true. */
  special?: boolean;
}

/** The parts of `tokenizer.json` that `Tokenizer` uses. */
export interface TokenizerDefinition {
  model: { type: "BPE" | "WordPiece"; vocab: Record<string, number>; [setting: string]: unknown };
  pre_tokenizer: object;
  normalizer: object | null;
  /** Runs of spaces: the only added tokens that a text is searched for. */
  added_tokens: AddedToken[];
  /** Added tokens that are text, such as `<think>`, by id. */
  texts: Map<number, string>;
  /** Ids of special tokens, which have no text. */
  silent: number[];
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
  Ling:
    String.raw`'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*` +
    String.raw`|\s*[\r\n]|\s+(?!\S)|\s+`,
} as const;

/**
 * Make possessive quantifiers, which JavaScript lacks, greedy. In an expression that then is one of PATTERNS
 * nothing changes: what follows them begins with none of their characters.
 */
const greedy = (expression: string) => expression.replaceAll(/([?+])\+/g, "$1");

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

const vocab = { type: "object", additionalProperties: { type: "integer", minimum: 0 } };

const isBpe = createAjv().compile<TokenizerDefinition["model"]>({
  type: "object",
  required: ["type", "vocab", "merges"],
  properties: {
    type: { const: "BPE" },
    vocab,
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

/**
 * BERT's: words are cut at spaces and punctuation, and take time in proportion to MOST_CHARACTERS at most.
 */
const MOST_CHARACTERS = 200;
const isWordPiece = createAjv().compile<TokenizerDefinition["model"]>({
  type: "object",
  required: ["type", "vocab", "unk_token"],
  properties: {
    type: { const: "WordPiece" },
    vocab,
    unk_token: { type: "string" },
    continuing_subword_prefix: { const: "##" },
    max_input_chars_per_word: { type: "integer", minimum: 1, maximum: MOST_CHARACTERS },
  },
});

const isBertNormalizer = createAjv().compile({
  type: "object",
  additionalProperties: false,
  required: ["type"],
  properties: {
    type: { const: "BertNormalizer" },
    clean_text: flag,
    handle_chinese_chars: flag,
    strip_accents: { type: ["boolean", "null"] },
    lowercase: flag,
  },
});

const isAdded = createAjv().compile<AddedToken[]>({
  type: "array",
  items: {
    type: "object",
    required: ["id", "content"],
    properties: { id: { type: "integer", minimum: 0 }, content: { type: "string" }, special: flag },
  },
});

/** What is kept of a model. */
const SETTINGS = [
  "type",
  "vocab",
  "merges",
  "ignore_merges",
  "unk_token",
  "continuing_subword_prefix",
  "max_input_chars_per_word",
];

/** Return a refused value as one short line for an error. */
const shown = (value: unknown) => {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 120 ? text : `${text.slice(0, 117)}...`;
};

/**
 * Parse the text of a `tokenizer.json`. It must be a byte-level BPE with a known way to split, or BERT's
 * WordPiece, and have ids below `vocabSize`. Throws Error naming the part that cannot be used.
 */
export function parseTokenizer(text: string, vocabSize: number): TokenizerDefinition {
  const definition = JSON.parse(text);
  const { model, pre_tokenizer, normalizer = null, added_tokens = [] } = definition ?? {};
  const isBert = model?.type === "WordPiece";
  if (!isBert && (model?.type !== "BPE" || definition?.decoder?.type !== "ByteLevel"))
    throw new Error("it is neither a byte-level BPE nor BERT's WordPiece");
  const split = pre_tokenizer?.pretokenizers?.[0]?.pattern;
  if (typeof split?.Regex === "string") split.Regex = greedy(split.Regex);
  if (isBert && pre_tokenizer?.type !== "BertPreTokenizer")
    throw new Error(`its pre_tokenizer must be BertPreTokenizer; it is ${shown(pre_tokenizer)}`);
  if (!isBert && !isPreTokenizer(pre_tokenizer))
    throw new Error(
      "its pre_tokenizer is not one that is known to take linear time: ByteLevel, or a Split by the " +
        `expression of ${Object.keys(PATTERNS).join(", ")} before it; it is ${shown(pre_tokenizer)}`,
    );
  if (normalizer !== null && !(isBert ? isBertNormalizer(normalizer) : isNormalizer(normalizer))) {
    const allowed = isBert ? "null or BertNormalizer" : "null, NFC, NFD, NFKC or NFKD";
    throw new Error(`its normalizer must be ${allowed}; it is ${shown(normalizer)}`);
  }
  const isModel = isBert ? isWordPiece : isBpe;
  if (!isModel(model)) {
    const { instancePath, message } = isModel.errors!.at(-1)!;
    throw new Error(`its model${shown(instancePath).slice(1, -1)} ${message}`);
  }
  if (!isAdded(added_tokens))
    throw new Error(`its added_tokens${isAdded.errors![0]!.instancePath} are wrong`);
  const tokens: [string, number][] = [
    ...Object.entries(model.vocab),
    ...added_tokens.map(({ content, id }): [string, number] => [content, id]),
  ];
  for (const [token, id] of tokens) {
    if (id >= vocabSize) throw new Error(`id ${id} is outside the vocabulary of ${vocabSize}`);
    // Each character of a byte-level token is one byte.
    if ((isBert ? Buffer.byteLength(token) : token.length) > MAX_TOKEN_BYTES)
      throw new Error(`the token with id ${id} has more than ${MAX_TOKEN_BYTES} bytes`);
  }
  const plain = added_tokens.filter(({ special }) => special === false);
  return {
    normalizer,
    pre_tokenizer,
    model: Object.fromEntries(
      SETTINGS.filter((name) => name in model).map((name) => [name, model[name]]),
    ) as TokenizerDefinition["model"],
    // Ids are decoded by their bytes, special tokens never come from text, and prompts are not wrapped.
    decoder: null,
    added_tokens: plain.filter(({ content }) => /^\s+$/.test(content)),
    texts: new Map(plain.map(({ id, content }) => [id, content])),
    silent: added_tokens.filter(({ special }) => special !== false).map(({ id }) => id),
    post_processor: null,
  };
}
