/** Log-probabilities of /v1/completions and /generate: alternatives to each token, and scores of a prompt. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { FastifyInstance } from "fastify";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { TINY_GUIDED } from "../../support/engine.ts";
import { dataOf } from "../../support/http.ts";
import { serve } from "../support.ts";

const { engine, app } = await serve();
const { app: guidedApp } = await serve({}, TINY_GUIDED);

async function post(url: string, payload: object, to = app): Promise<string> {
  const response = await to.inject({ method: "POST", url, payload });
  assert.equal(response.statusCode, 200, response.body);
  return response.body;
}

async function complete(fields: object) {
  const payload = { model: engine.model.manifest.name, max_tokens: 30, seed: 8, steps: 6, ...fields };
  const body = JSON.parse(await post("/v1/completions", payload)) as Schemas["CompletionResponse"];
  assert.deepEqual(validator("CompletionResponse")(structuredClone(body)), { value: body });
  return body;
}

for (const count of [1, 3, 5])
  test(`logprobs ${count}: as many alternatives with the token, and the same tokens as without`, async () => {
    const plain = (await complete({ prompt: ["Once", "The dog"], logprobs: 0 })).choices;
    const { choices } = await complete({ prompt: ["Once", "The dog"], logprobs: count });
    for (const [i, { text, logprobs }] of choices.entries()) {
      assert.equal(text, plain[i]!.text);
      const { top_logprobs: top, ...rest } = logprobs!;
      assert.deepEqual({ ...rest, top_logprobs: null }, plain[i]!.logprobs);
      for (const [k, alternatives] of top!.entries()) {
        const sorted = Object.values(alternatives).toSorted((a, b) => b - a);
        assert.ok([count, count + 1].includes(sorted.length), JSON.stringify(alternatives));
        const own = rest.token_logprobs[k]!;
        assert.ok(Object.values(alternatives).includes(own));
        // What is not among the first `count` is less likely than they are.
        if (sorted.length > count) assert.equal(own, sorted.at(-1));
      }
    }
  });

test("temperature 0 takes the first alternative", async () => {
  for (const seed of [1, 2, 3]) {
    const { choices } = await complete({ prompt: "Once upon", logprobs: 2, temperature: 0, seed });
    const { token_logprobs, top_logprobs } = choices[0]!.logprobs!;
    for (const [i, own] of token_logprobs.entries())
      assert.equal(own, Math.max(...Object.values(top_logprobs![i]!)));
  }
});

/** Requests to /generate of every kind of step. */
const KINDS: [name: string, fields: object, of: () => FastifyInstance][] = [
  ["plain", { n: 3 }, () => app],
  ["by confidence", { order: "confidence" }, () => app],
  [
    "a template, cut to top_k and top_p",
    { template: "a {{mask:6}} b {{mask:4}}", top_k: 9, top_p: 0.9 },
    () => app,
  ],
  ["tilted and re-ranked", { guidance: { mode: "rgas", candidates: 3 }, n: 2 }, () => guidedApp],
  ["ranked", { n: 2, best_of: 3 }, () => guidedApp],
];

for (const [name, fields, of] of KINDS)
  test(`top_logprobs change nothing else: ${name}`, async () => {
    const canvas = "template" in fields ? {} : { prompt: "On", length: 20 };
    const asked = { ...canvas, steps: 5, seed: 11, logprobs: true, ...fields };
    const plain = JSON.parse(await post("/generate", asked, of())) as Schemas["GenerateResponse"];
    for (const top_logprobs of [0, 1, 20]) {
      const answer = JSON.parse(await post("/generate", { ...asked, top_logprobs }, of())) as typeof plain;
      assert.equal(answer.receipt.trace_sha256, plain.receipt.trace_sha256);
      for (const [i, { top_logprobs: top, ...sample }] of answer.samples.entries()) {
        assert.deepEqual(sample, plain.samples[i]);
        assert.equal(top?.length, top_logprobs === 0 ? undefined : sample.tokens.length);
        for (const list of top ?? []) {
          assert.ok(list.length > 0 && list.length <= top_logprobs);
          assert.equal(new Set(list.map(({ token }) => token)).size, list.length);
          const sum = list.reduce((total, { logprob }) => total + Math.exp(logprob), 0);
          assert.ok(sum <= 1 + 1e-4, `${sum}`);
          assert.deepEqual(
            list.map(({ logprob }) => logprob),
            list.map(({ logprob }) => logprob).toSorted((a, b) => b - a),
          );
        }
      }
    }
  });

test("requests in one batch do not change each other's alternatives", async () => {
  const asked = {
    prompt: "Once upon a time",
    length: 24,
    steps: 4,
    logprobs: true,
    top_logprobs: 4,
    seed: 5,
  };
  const samplesOf = async (body: object) => JSON.parse(await post("/generate", body)).samples;
  const alone = await samplesOf(asked);
  const others = [
    { ...asked, top_logprobs: 0, n: 4 },
    { ...asked, top_k: 3, seed: 6 },
    { ...asked, prompt: "A" },
  ];
  const [together] = await Promise.all([asked, ...others].map(samplesOf));
  assert.deepEqual(together, alone);
});

/** Texts to score. */
const TEXTS = ["Once upon a time there was a little dog.", "cat", "Zoë saw 😀."];

for (const text of TEXTS)
  test(`${JSON.stringify(text)} is scored as if each token were drawn with all others shown`, async () => {
    const { tokenizer, manifest } = engine.model;
    const ids = tokenizer.encode(text, 99)!;
    for (const prompt of [text, ids]) {
      const body = await complete({ prompt, echo: true, max_tokens: 0, logprobs: 3 });
      const [choice] = body.choices;
      assert.equal(choice!.text, text);
      assert.equal(choice!.finish_reason, "length");
      assert.deepEqual(body.usage, {
        prompt_tokens: ids.length,
        completion_tokens: 0,
        total_tokens: ids.length,
      });
      const { tokens, token_logprobs, top_logprobs } = choice!.logprobs!;
      assert.deepEqual(
        tokens,
        ids.map((id) => tokenizer.tokenText(id)),
      );
      assert.ok(top_logprobs!.length === ids.length);
      // Draw at that position until the token itself is drawn; most are likely.
      for (const [i, id] of ids.entries()) {
        const canvas = { tokens: ids.with(i, manifest.mask_token_id), steps: 1, logprobs: true };
        for (let seed = 0; seed < 20; seed++) {
          const { samples } = await engine.submit({ ...canvas, seed, n: 16, temperature: 1.5 }).result;
          const drawn = samples.find((sample) => sample.tokens[0] === id);
          if (!drawn) continue;
          assert.ok(Math.abs(drawn.logprobs![0]! - token_logprobs[i]!) < 1e-4);
          break;
        }
      }
    }
  });

test("an echoed prompt is scored before what is generated, streamed or not", async () => {
  for (const fields of [
    { prompt: "The dog" },
    { prompt: ["A", "The cat sat"], n: 2 },
    { prompt: "", logprobs: 1 },
  ]) {
    const asked = { logprobs: 2, ...fields, echo: true, max_tokens: 6 };
    const { choices } = await complete(asked);
    const scores = fields.prompt === "" ? [] : (await complete({ ...asked, max_tokens: 0 })).choices;
    const payload = { model: engine.model.manifest.name, seed: 8, steps: 6, ...asked, stream: true };
    const events = dataOf(await post("/v1/completions", payload)).slice(0, -1);
    const chunks = events.flatMap((data) => (JSON.parse(data) as Schemas["CompletionResponse"]).choices);
    for (const { index, text, logprobs } of choices) {
      const prefix = scores[index]?.logprobs ?? { tokens: [], token_logprobs: [] };
      assert.deepEqual(logprobs!.tokens.slice(0, prefix.tokens.length), prefix.tokens);
      assert.deepEqual(logprobs!.token_logprobs.slice(0, prefix.tokens.length), prefix.token_logprobs);
      const own = chunks.filter((chunk) => chunk.index === index);
      assert.equal(own.map((chunk) => chunk.text).join(""), text);
      for (const key of ["tokens", "token_logprobs", "text_offset", "top_logprobs"] as const)
        assert.deepEqual(
          own.flatMap((chunk) => (chunk.logprobs![key] ?? []) as unknown[]),
          logprobs![key] ?? [],
        );
    }
  }
});

test("what cannot be scored or listed is refused", async () => {
  const refused = async (url: string, fields: object, status: number, says: RegExp) => {
    const payload = {
      ...(url.startsWith("/v1") && { model: engine.model.manifest.name }),
      prompt: "a",
      ...fields,
    };
    const response = await app.inject({ method: "POST", url, payload });
    assert.equal(response.statusCode, status, response.body);
    assert.match(response.body, says);
  };
  await refused("/v1/completions", { max_tokens: 0, echo: true }, 400, /max_tokens is 0: ask for at least 1/);
  await refused("/v1/completions", { max_tokens: 0, logprobs: 1 }, 400, /max_tokens is 0/);
  await refused(
    "/v1/completions",
    { max_tokens: 0, logprobs: 1, echo: true, prompt: [9999] },
    400,
    /must be below 4095/,
  );
  await refused(
    "/v1/completions",
    { max_tokens: 0, logprobs: 1, echo: true, prompt: "" },
    400,
    /nothing to score/,
  );
  const long = "word ".repeat(300);
  await refused(
    "/v1/completions",
    { max_tokens: 0, logprobs: 1, echo: true, prompt: long },
    413,
    /context of 256/,
  );
  await refused("/generate", { top_logprobs: 3 }, 400, /top_logprobs has no effect without logprobs/);
  await refused("/generate", { top_logprobs: 21, logprobs: true }, 400, /must be <= 20, and is 21/);
});
