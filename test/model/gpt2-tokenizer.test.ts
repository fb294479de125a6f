import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode } from "gpt-tokenizer/encoding/r50k_base";
import { gpt2Tokenizer, tokenizerFromRanks } from "../../src/model/gpt2-tokenizer.ts";
import { Tokenizer } from "../../src/model/tokenizer.ts";
import { parseTokenizer } from "../../src/model/tokenizer-file.ts";

/** As in the published model: the mask is the last id and not in tokenizer.json. */
const VOCAB_SIZE = 50_258;
const SPECIAL = { maskId: 50_257, endOfTextId: 50_256 };

const definition = (await gpt2Tokenizer()) as {
  added_tokens: { id: number; content: string }[];
  model: { vocab: Record<string, number>; merges: string[] };
};
const parsed = parseTokenizer(JSON.stringify(definition), VOCAB_SIZE);
const tokenizer = new Tokenizer(parsed, VOCAB_SIZE, SPECIAL);

const TEXTS = [
  "Hello world",
  "It's what they'd've said, isn't it? WE'LL SEE; I'm 'sure'.",
  "  leading, trailing  \n\n\n\t tabs\t\tand   runs    of     spaces      ",
  "naïve café 🙂 👩‍👩‍👧 日本語 Здравствуй مرحبا \u0301\u0323 ﬃ",
  "export const f = async <T>(x: T[]): Promise<void> => {\n  for (let i = 0; i !== x.length; ++i) await g(x[i]!);\n};\n",
  "def f(x):\n\treturn {k: v ** 2 for k, v in x.items() if k != '__init__'}  # 3.14159e-10",
  "12345678901234567890 1,234.56 0x7fff ½ Ⅷ ٣",
  '<div class="a">&nbsp;</div> https://example.org/a?b=c&d=%20 SolidGoldMagikarp',
  "\u00a0\u2003\u3000 odd spaces \u200b\r\n\r\n \u0000\u0007",
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!!!!!!!!!????......",
];

test("the known encoding", () => {
  assert.deepEqual(tokenizer.encode("Hello world", 1024), [15496, 995]);
});

test("encodes varied texts like gpt-tokenizer, and decodes them back", () => {
  for (const text of TEXTS) {
    const ids = tokenizer.encode(text, 1024)!;
    assert.deepEqual(ids, encode(text), JSON.stringify(text));
    assert.equal(tokenizer.decode(ids), text);
  }
});

test("the text of every token encodes like in gpt-tokenizer, alone and after a word", () => {
  let differing = 0;
  for (let id = 0; id < 50_256; id += 7) {
    const text = decode([id]);
    if (text.includes("\ufffd")) continue;
    for (const context of [text, `x${text}y`])
      if (tokenizer.encode(context, 1024)!.join() !== encode(context).join()) differing++;
  }
  assert.equal(differing, 0);
});

test("the table is GPT-2's: 50,000 merges, the end of text at 50,256, no mask", () => {
  assert.equal(definition.model.merges.length, 50_000);
  assert.deepEqual(definition.model.merges.slice(0, 3), ["Ġ t", "Ġ a", "h e"]);
  assert.deepEqual(
    definition.added_tokens.map(({ id, content }) => [id, content]),
    [[50_256, "<|endoftext|>"]],
  );
  assert.equal(Object.keys(definition.model.vocab).length, 50_257);
});

test("masks show as ░ although tokenizer.json does not know them", () => {
  const ids = [...tokenizer.encode("one", 9)!, SPECIAL.maskId, ...tokenizer.encode(" two", 9)!];
  assert.equal(tokenizer.decode(ids), "one░ two");
  assert.equal(tokenizer.tokenText(SPECIAL.maskId), "");
});

test("a table that is not a byte pair encoding is refused", () => {
  const bytes = Array.from({ length: 256 }, (_, b) => Uint8Array.of(b));
  assert.throws(() => tokenizerFromRanks([...bytes, Uint8Array.of(1, 2, 3)]), /not made by any merge/);
  assert.throws(() => tokenizerFromRanks([...bytes, Uint8Array.of(7)]), /same bytes/);
});
