import assert from "node:assert/strict";
import { before, test } from "node:test";
import { decodeRun, MASK_GLYPH } from "../../src/model/byte-level.ts";
import { openModel } from "../../src/model/model.ts";
import { Tokenizer } from "../../src/model/tokenizer.ts";
import { parseTokenizer } from "../../src/model/tokenizer-file.ts";
import { GOLDEN, MODEL } from "../support/engine.ts";

let tokenizer: Tokenizer;
before(async () => {
  tokenizer = (await openModel(MODEL)).tokenizer;
});

test("encodes like the Python library, with special tokens as plain text", () => {
  for (const { text, ids } of GOLDEN.encodings) assert.deepEqual(tokenizer.encode(text, 256), ids);
});

test("decoding restores any text", () => {
  for (const text of [
    "Once upon a time",
    "naïve café 🙂 日本語",
    "  \n\n\ttabs",
    "e\u0301\u0323 👩‍👩‍👧",
    "[MASK] <|endoftext|>",
  ])
    assert.equal(tokenizer.decode(tokenizer.encode(text, 256)!), text);
});

test("a text that is certainly too long is not tokenised", () => {
  assert.equal(tokenizer.encode("a".repeat(10_000_000), 256), undefined);
});

test("a character that no token has is refused with its place, not left out", () => {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false };
  const model = { type: "BPE", vocab: { A: 0, C: 1, D: 2 }, merges: [] };
  const file = { model, pre_tokenizer: byteLevel, decoder: byteLevel };
  const residues = new Tokenizer(parseTokenizer(JSON.stringify(file), 5), 5, { maskId: 4, endOfTextId: 3 });
  assert.deepEqual(residues.encode("CAD", 9, "/prompt"), [1, 0, 2]);
  for (const [text, character, at] of [
    ["CAX", "X", 3],
    ["A C", " ", 2],
    ["🙂", "🙂", 1],
  ] as const)
    assert.throws(() => residues.encode(text, 9, "/prompt"), {
      fields: [
        {
          path: "/prompt",
          message: `has "${character}" as character ${at}, for which the model has no token`,
        },
      ],
    });
});

test("no partial character shows next to a mask", () => {
  const ids = tokenizer.encode("é🙂日", 256)!;
  assert.ok(ids.length > 3, "these characters are spread over several tokens");
  for (let masked = 1; masked < 2 ** ids.length; masked++) {
    const canvas = ids.map((id, i) => (masked & (2 ** i) ? tokenizer.special.maskId : id));
    const text = tokenizer.decode(canvas);
    assert.equal(
      [...text].filter((character) => character === MASK_GLYPH).length,
      canvas.filter((id) => id === tokenizer.special.maskId).length,
    );
    assert.ok(!text.includes("\ufffd"), JSON.stringify(text));
  }
});

test("broken bytes that no mask can complete show as U+FFFD", () => {
  assert.equal(decodeRun(Uint8Array.of(0xe6, 0x97, 0x41), false, false), "\ufffdA");
  assert.equal(decodeRun(Uint8Array.of(0x97, 0x41), true, false), "A");
  assert.equal(decodeRun(Uint8Array.of(0x41, 0xe6, 0x97), false, true), "A");
  assert.equal(decodeRun(Uint8Array.of(0x41, 0xe6, 0x97), false, false), "A\ufffd");
  assert.equal(decodeRun(Uint8Array.of(0x41), true, true), "A");
});

test("text ends at the first end of text", () => {
  const ids = tokenizer.encode("one two", 256)!;
  assert.equal(tokenizer.decode([...ids, tokenizer.special.endOfTextId, ...ids]), "one two");
});
