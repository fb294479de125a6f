/**
 * `text_offset` of log-probabilities: characters, also where a character has several units or several tokens.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { characterStarts, decodeBytes } from "../../../src/model/byte-level.ts";
import type { Schemas } from "../../../src/server/openapi.ts";
import { TINY_GUIDED } from "../../support/engine.ts";
import { dataOf } from "../../support/http.ts";
import { serve } from "../support.ts";

// Of random weights: it draws bytes of all kinds.
const { engine, app } = await serve({}, TINY_GUIDED);

type Logprobs = NonNullable<Schemas["CompletionChoice"]["logprobs"]>;

async function post(fields: object): Promise<string> {
  const payload = { model: engine.model.manifest.name, max_tokens: 40, steps: 5, logprobs: 0, ...fields };
  const response = await app.inject({ method: "POST", url: "/v1/completions", payload });
  assert.equal(response.statusCode, 200, response.body);
  return response.body;
}

/** Return the text and the log-probabilities of a stream. */
async function stream(fields: object) {
  let text = "";
  const all: Logprobs = { tokens: [], token_logprobs: [], top_logprobs: null, text_offset: [] };
  for (const data of dataOf(await post({ ...fields, stream: true })).slice(0, -1)) {
    const [choice] = (JSON.parse(data) as Schemas["CompletionResponse"]).choices;
    text += choice!.text;
    all.tokens.push(...choice!.logprobs!.tokens);
    all.token_logprobs.push(...choice!.logprobs!.token_logprobs);
    all.text_offset.push(...choice!.logprobs!.text_offset);
  }
  return { text, logprobs: all };
}

const PROMPTS = ["plain", "😀 two units", "e\u0301 and 👩‍🚀 and \u{10ffff}", "日本語"];

for (const prompt of PROMPTS)
  test(`offsets after ${JSON.stringify(prompt)} count code points, in streams and with echo too`, async () => {
    for (const echo of [false, true])
      for (let seed = 0; seed < 4; seed++) {
        const fields = { prompt, echo, seed };
        const [choice] = (JSON.parse(await post(fields)) as Schemas["CompletionResponse"]).choices;
        const { text, logprobs } = choice!;
        const characters = Array.from(text);
        const { tokens, text_offset } = logprobs!;
        assert.equal(text_offset[0], 0);
        for (const [i, offset] of text_offset.entries()) {
          assert.ok(offset < characters.length);
          // A token of whole characters stands where its offset says.
          if (tokens[i] !== "" && !tokens[i]!.includes("\ufffd"))
            assert.ok(characters.slice(offset).join("").startsWith(tokens[i]!), `${i} of ${text}`);
        }
        assert.deepEqual(await stream(fields), { text, logprobs });
      }
  });

test("a prompt of ids that ends within a character is counted without it", async () => {
  const ids = engine.model.tokenizer.encode("a 😀", 99)!;
  for (const cut of [1, 2, 3]) {
    const fields = { prompt: ids.slice(0, -cut), echo: true, seed: 5 };
    const [choice] = (JSON.parse(await post(fields)) as Schemas["CompletionResponse"]).choices;
    assert.deepEqual(await stream(fields), { text: choice!.text, logprobs: choice!.logprobs });
    // What was cut off is the rest of the character, or shows as one broken character.
    assert.ok(choice!.logprobs!.text_offset[0]! <= 3);
  }
});

test("every character of a decoded text has one start", () => {
  const bytes = fc.array(
    fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(0xe2, 0x82, 0xac, 0xf0, 0x9f)),
  );
  fc.assert(
    fc.property(bytes, (list) => {
      const all = Uint8Array.from(list);
      const starts = characterStarts(all);
      const characters = Array.from(decodeBytes(all));
      assert.equal(starts.length, characters.length);
      for (const [i, start] of starts.entries())
        assert.equal(decodeBytes(all.subarray(start)), characters.slice(i).join(""));
    }),
    { numRuns: 2000 },
  );
});
