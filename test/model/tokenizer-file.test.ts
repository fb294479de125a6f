/** A `tokenizer.json` may only use operations that take linear time. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { gpt2Tokenizer } from "../../src/model/gpt2-tokenizer.ts";
import { Tokenizer } from "../../src/model/tokenizer.ts";
import { PATTERNS, parseTokenizer } from "../../src/model/tokenizer-file.ts";
import { TINY_GUIDED } from "../support/engine.ts";

const VOCAB_SIZE = 258;
const base = JSON.parse(await readFile(join(TINY_GUIDED, "tokenizer.json"), "utf8"));

const parse = (change: object) => parseTokenizer(JSON.stringify({ ...base, ...change }), VOCAB_SIZE);
const split = (Regex: string, more: object = {}) => ({
  type: "Split",
  pattern: { Regex },
  behavior: "Isolated",
  invert: false,
  ...more,
});
const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
const sequence = (...pretokenizers: object[]) => ({ type: "Sequence", pretokenizers });

/** Takes 2^n steps on n letters followed by another character. */
const HANGS = "(a+)+$";

const REFUSED: Record<string, { change: object; says?: RegExp }> = {
  "an expression of its own": { change: { pre_tokenizer: split(HANGS) } },
  "one before the bytes": { change: { pre_tokenizer: sequence(split(HANGS), byteLevel) } },
  "one after a known one": {
    change: { pre_tokenizer: sequence(split(PATTERNS["GPT-2"]), split(HANGS), byteLevel) },
  },
  "one in a sequence of sequences": {
    change: { pre_tokenizer: sequence(sequence(split(HANGS)), byteLevel) },
  },
  "a known one with something added": {
    change: { pre_tokenizer: sequence(split(`${PATTERNS["GPT-2"]}|${HANGS}`), byteLevel) },
  },
  "a known one split in another way": {
    change: { pre_tokenizer: sequence(split(PATTERNS["GPT-2"], { behavior: "Removed" }), byteLevel) },
  },
  "an expression that replaces": {
    change: { pre_tokenizer: { type: "Replace", pattern: { Regex: HANGS }, content: "" } },
  },
  "words by spaces": { change: { pre_tokenizer: { type: "Whitespace" } } },
  "no way to split": { change: { pre_tokenizer: null } },
  "a normalizer with an expression": {
    change: { normalizer: { type: "Replace", pattern: { Regex: HANGS }, content: "" } },
    says: /normalizer must be null, NFC/,
  },
  "a normalizer with a table": {
    change: { normalizer: { type: "Precompiled", precompiled_charsmap: "AAAA" } },
    says: /normalizer must be null, NFC/,
  },
  "a sequence of normalizers": {
    change: {
      normalizer: {
        type: "Sequence",
        normalizers: [{ type: "Replace", pattern: { Regex: HANGS }, content: "" }],
      },
    },
    says: /normalizer must be null, NFC/,
  },
  "suffixes of words": {
    change: { model: { ...base.model, end_of_word_suffix: "</w>" } },
    says: /model\/end_of_word_suffix/,
  },
  "ids that are no numbers": {
    change: { model: { ...base.model, vocab: { a: "b" } } },
    says: /model\/vocab\/a must be integer/,
  },
  "ids below zero": {
    change: { model: { ...base.model, vocab: { a: -1 } } },
    says: /model\/vocab\/a must be >= 0/,
  },
  "ids beyond the vocabulary": {
    change: { model: { ...base.model, vocab: { a: VOCAB_SIZE } } },
    says: /id 258 is outside the vocabulary of 258/,
  },
  "merges that are none": {
    change: { model: { ...base.model, merges: [7] } },
    says: /model\/merges\/0 must/,
  },
  "a token of a kilobyte": {
    change: { model: { ...base.model, vocab: { ...base.model.vocab, ["a".repeat(1024)]: 256 } } },
    says: /token with id 256 has more than 256 bytes/,
  },
};

for (const [name, { change, says }] of Object.entries(REFUSED))
  test(`a tokenizer with ${name} is refused`, () => {
    assert.throws(
      () => parse(change),
      (error: Error) => {
        assert.match(error.message, says ?? /pre_tokenizer is not one that is known to take linear time/);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      },
    );
  });

test("an error escapes and shortens values from the file", () => {
  const change = { pre_tokenizer: split(`\u001b[2J\n${"x".repeat(9000)}`) };
  assert.throws(
    () => parse(change),
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they must not be there.
    ({ message }: Error) => message.length < 500 && !/[\u0000-\u001f]/.test(message),
  );
});

test("special tokens, decoders and post-processors of the file are dropped", () => {
  const hangs = [{ type: "Replace", pattern: { Regex: HANGS }, content: "" }];
  const left = parse({
    post_processor: { type: "Sequence", processors: hangs },
    decoder: { type: "ByteLevel", decoders: hangs },
    added_tokens: [{ id: 1, content: "a", normalized: true }],
  });
  assert.ok(!JSON.stringify(left).includes(HANGS));
  assert.deepEqual(left.added_tokens, []);
});

test("the known ways to split are accepted and split as expected", async () => {
  const definition = (await gpt2Tokenizer()) as typeof base;
  const text = "It'S 1234 years,  \n ok";
  const pieces = (pre_tokenizer: object) => {
    const parsed = parseTokenizer(JSON.stringify({ ...definition, pre_tokenizer }), 50_258);
    const tokenizer = new Tokenizer(parsed, 50_258, { maskId: 50_257, endOfTextId: 50_256 });
    const ids = tokenizer.encode(text, 1024)!;
    assert.equal(tokenizer.decode(ids), text);
    return ids.map((id) => tokenizer.tokenText(id));
  };
  const gpt2 = pieces(sequence(split(PATTERNS["GPT-2"]), byteLevel));
  assert.deepEqual(gpt2, pieces({ ...byteLevel, use_regex: true }));
  assert.ok(gpt2.includes(" 12"), `${gpt2}`);
  // Digits in groups of three without the space before them, and one by one.
  assert.ok(pieces(sequence(split(PATTERNS["Llama 3"]), byteLevel)).includes("123"));
  assert.ok(pieces(sequence(split(PATTERNS["Qwen 2"]), byteLevel)).includes("1"));
  for (const type of ["NFC", "NFD", "NFKC", "NFKD"])
    assert.deepEqual(parse({ normalizer: { type } }).normalizer, { type });
});
