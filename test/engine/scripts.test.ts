/** Steps in every script, through GPT-2's tokenizer, whose tokens are often parts of characters. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { philox4x32 } from "../../src/diffusion/philox.ts";
import { FairLoop } from "../../src/engine/answers/fair-loop.ts";
import { StepEmitter, type StepEvent } from "../../src/engine/answers/step-emitter.ts";
import { type CanvasRequest, layoutOf } from "../../src/engine/layout.ts";
import type { SamplingParams } from "../../src/engine/request.ts";
import { MASK_GLYPH } from "../../src/model/byte-level.ts";
import { gpt2Tokenizer } from "../../src/model/gpt2-tokenizer.ts";
import type { Model } from "../../src/model/model.ts";
import { Tokenizer } from "../../src/model/tokenizer.ts";
import { parseTokenizer } from "../../src/model/tokenizer-file.ts";

const MASK = 50_257;
const definition = parseTokenizer(JSON.stringify(await gpt2Tokenizer()), MASK + 1);
const tokenizer = new Tokenizer(definition, MASK + 1, { maskId: MASK, endOfTextId: MASK - 1 });
/** The parts of a model that a canvas and its steps use. */
const model = {
  tokenizer,
  manifest: { name: "gpt2", context_length: 1024, mask_token_id: MASK },
} as unknown as Model;

const TEXTS = {
  emoji: "🙂🦖 👩‍👩‍👧‍👦 👍🏽 🇺🇳",
  CJK: "日本語の物語、中文故事。한국어",
  "combining marks": "e\u0301\u0323 n\u0303 Z\u0351\u036b\u0343 हिन्दी",
  "right to left": "مَرْحَبًا שָׁלוֹם",
  mixed: "naïve 🙂 日 café",
};

/** Return the steps that reveal the masked positions in `order`. */
function steps(request: CanvasRequest, ids: readonly number[], order: readonly number[]): StepEvent[] {
  const layout = layoutOf(model, request);
  const output = { layout, n: 1, stop: [], pastEnd: false, echo: true, logprobs: false, trace: true };
  const params = { canvas: layout.canvas, samples: 1, steps: order.length } as unknown as SamplingParams;
  const emitter = new StepEmitter(
    model,
    { params, output, deadlineMs: undefined },
    undefined,
    new FairLoop(() => 0),
  );
  const records = order.map((position, step) => ({
    sample: 0,
    record: {
      ...{ step, t: 1 - step / order.length, kind: "plain" as const, rewards: [] },
      revealed: [{ position, token: ids[position]!, logprob: -1 }],
      masked: order.length - step - 1,
    },
  }));
  emitter.emit(records as Parameters<typeof emitter.emit>[0]);
  return emitter.trace!;
}

/** Return true if `whole` contains the characters of `part` in this order. */
function isSubsequence(part: Iterable<string>, whole: string): boolean {
  const rest = [...whole][Symbol.iterator]();
  for (const character of part) {
    let next = rest.next();
    while (!next.done && next.value !== character) next = rest.next();
    if (next.done) return false;
  }
  return true;
}

function shuffled(positions: readonly number[], seed: number): number[] {
  return positions
    .map((position) => [philox4x32([position, 0, 0, 0], [seed, 0])[0], position] as const)
    .sort(([a], [b]) => a - b)
    .map(([, position]) => position);
}

for (const [script, text] of Object.entries(TEXTS))
  test(`${script}: no step shows half a character, and the last one shows the text`, () => {
    const ids = tokenizer.encode(text, 1024)!;
    assert.ok(
      ids.some((id) => tokenizer.tokenText(id).includes("\ufffd")),
      "no token is part of a character",
    );
    const everywhere = ids.map((_, position) => position);
    for (let seed = 0; seed < 60; seed++) {
      // The whole text is generated, or random positions of it: given ids can end inside characters too.
      const masked =
        seed % 2 ? shuffled(everywhere, 1000 + seed).slice(0, 1 + (seed % ids.length)) : everywhere;
      const tokens = ids.map((id, position) => (masked.includes(position) ? MASK : id));
      const seen = steps({ tokens }, ids, shuffled(masked, seed));
      assert.equal(seen.at(-1)!.text, text);
      for (const event of seen) {
        assert.ok(!event.text.includes("\ufffd"), JSON.stringify(event.text));
        const shown = [...event.text];
        assert.equal(shown.filter((character) => character === MASK_GLYPH).length, event.masked);
        assert.ok(
          isSubsequence(
            shown.filter((character) => character !== MASK_GLYPH),
            text,
          ),
          event.text,
        );
      }
    }
  });

test("a combining mark shows only after its character", () => {
  const text = "e\u0301";
  const ids = tokenizer.encode(text, 16)!;
  assert.equal(ids.length, 3);
  const seen = steps({ tokens: ids.map(() => MASK) }, ids, [2, 1, 0]).map((event) => event.text);
  assert.deepEqual(seen, ["░░", "░", text]);
});

test("the answer completes a character that a prompt of ids ends inside", () => {
  const ids = tokenizer.encode("日", 16)!;
  assert.ok(ids.length > 1);
  const request = { prompt_tokens: ids.slice(0, 1), length: ids.length - 1 };
  const seen = steps(
    request,
    ids,
    ids.slice(1).map((_, i) => i + 1),
  );
  assert.equal(seen.at(-1)!.text, "日");
  assert.ok(seen.every((event) => !event.text.includes("\ufffd")));
});
