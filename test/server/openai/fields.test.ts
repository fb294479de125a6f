/**
 * Fields that clients of other servers send to /v1/completions: harmless values are accepted, others are
 * refused.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Schemas } from "../../../src/server/openapi.ts";
import { dataOf } from "../../support/http.ts";
import { serve } from "../support.ts";

const { engine, app } = await serve();

const base = { prompt: "Once upon a time", max_tokens: 12, seed: 3, steps: 4 };

/** Post a completion of `base` and these fields. */
async function complete(fields: object) {
  const payload = { model: engine.model.manifest.name, ...base, ...fields };
  const response = await app.inject({ method: "POST", url: "/v1/completions", payload });
  return { status: response.statusCode, text: response.body };
}

const choicesOf = (text: string) => (JSON.parse(text) as Schemas["CompletionResponse"]).choices;

/** What clients send unasked, or with their own defaults; each changes nothing beside temperature 1. */
const NEUTRAL: [client: string, fields: object][] = [
  [
    "LangChain for Python",
    {
      temperature: 1,
      top_p: 1,
      frequency_penalty: 0,
      presence_penalty: 0,
      n: 1,
      logit_bias: {},
      logprobs: null,
    },
  ],
  [
    "LangChain for JavaScript",
    { n: 1, best_of: 1, logit_bias: undefined, stop: [], user: "u-1", presence_penalty: 0, stream: false },
  ],
  ["LiteLLM", { extra_body: {}, user: "u-1", metadata: { run: "7" }, stream_options: null }],
  ["vLLM's benchmark", { repetition_penalty: 1.0, logprobs: null, temperature: 1.0 }],
  ["SGLang's benchmark", { best_of: 1, ignore_eos: false, lora_path: null, stream: false }],
  [
    "a client with every default of vLLM",
    {
      ...{
        use_beam_search: false,
        top_k: -1,
        min_p: 0,
        length_penalty: 1.0,
        stop_token_ids: [],
        bad_words: [],
      },
      ...{ include_stop_str_in_output: false, min_tokens: 0, skip_special_tokens: true, priority: 0 },
      ...{ spaces_between_special_tokens: true, truncate_prompt_tokens: null, allowed_token_ids: null },
      ...{ prompt_logprobs: null, add_special_tokens: true, response_format: { type: "text" } },
      ...{ structured_outputs: null, guided_json: null, request_id: "r-1", return_token_ids: false },
      ...{ cache_salt: "abc", kv_transfer_params: null, vllm_xargs: {}, return_tokens_as_token_ids: null },
    },
  ],
  ["OpenAI's client", { service_tier: "auto", store: false, safety_identifier: "x", prompt_cache_key: "k" }],
  ["a client that sets usage off", { stream_options: { include_usage: false, include_obfuscation: false } }],
  ["a map of biases that are all 0", { logit_bias: { 50256: 0, 7: 0.0 } }],
  ["null for every field", { n: null, seed: 3, guidance: null, tools: null, parallel_tool_calls: null }],
];

test("a completion that names no temperature and no cut takes the model's own", async (t) => {
  const { manifest } = engine.model;
  const own = manifest.defaults;
  const whole = choicesOf((await complete({ temperature: 1 })).text);
  const cut = choicesOf((await complete({ temperature: 1, top_k: 1 })).text);
  assert.notDeepEqual(cut, whole);
  t.after(() => Object.assign(manifest, { defaults: own }));
  for (const defaults of [
    { ...own, top_k: 1 },
    { ...own, top_p: 1e-6 },
  ]) {
    Object.assign(manifest, { defaults });
    for (const fields of [{}, { temperature: null, top_k: null, top_p: null }])
      assert.deepEqual(choicesOf((await complete(fields)).text), cut);
    for (const fields of [{ temperature: 1 }, { top_k: -1 }, { top_p: 1 }])
      assert.deepEqual(choicesOf((await complete(fields)).text), whole);
  }
});

test("values that change nothing are accepted, and change nothing", async () => {
  const plain = choicesOf((await complete({ temperature: 1 })).text);
  for (const [client, fields] of NEUTRAL) {
    const { status, text } = await complete({ temperature: 1, ...fields });
    assert.equal(status, 200, `${client}: ${text}`);
    assert.deepEqual(choicesOf(text), plain, client);
  }
});

/** Values that would change something, and the parameter that the error names. */
const REFUSED: [fields: object, param: string][] = [
  [{ frequency_penalty: 0.5 }, "frequency_penalty"],
  [{ frequency_penalty: -2 }, "frequency_penalty"],
  [{ presence_penalty: 1e-9 }, "presence_penalty"],
  [{ repetition_penalty: 1.1 }, "repetition_penalty"],
  [{ repetition_penalty: 0 }, "repetition_penalty"],
  [{ logit_bias: { 50256: -100 } }, "logit_bias"],
  [{ logit_bias: { 1: 0, 2: 0.1 } }, "logit_bias"],
  [{ min_p: 0.05 }, "min_p"],
  [{ min_tokens: 3 }, "min_tokens"],
  [{ use_beam_search: true }, "use_beam_search"],
  [{ skip_special_tokens: false }, "skip_special_tokens"],
  [{ stop_token_ids: [5] }, "stop_token_ids"],
  [{ response_format: { type: "json_object" } }, "response_format"],
  [{ response_format: { type: "json_schema", json_schema: {} } }, "response_format"],
  [{ guided_json: { type: "object" } }, "guided_json"],
  [{ truncate_prompt_tokens: 5 }, "truncate_prompt_tokens"],
  [{ prompt_logprobs: 1 }, "prompt_logprobs"],
  [{ store: true }, "store"],
  [{ service_tier: "priority" }, "service_tier"],
  [{ user: 7 }, "user"],
  [{ tools: [{ type: "function" }] }, "tools"],
  [{ lora_path: "other" }, "lora_path"],
  [{ top_k: -2 }, "top_k"],
  [{ best_of: 0 }, "best_of"],
  [{ stream: true, stream_options: { include_obfuscation: true } }, "stream_options.include_obfuscation"],
  [
    { stream: true, stream_options: { continuous_usage_stats: true } },
    "stream_options.continuous_usage_stats",
  ],
  [{ suffix: "b", echo: true }, "echo"],
  [{ prompt: [1, 2], suffix: "b" }, "suffix"],
  [{ reasoning_effort: "low", steps: 8 }, "reasoning_effort"],
  [{ reasoning_effort: "much" }, "reasoning_effort"],
  [{ stpes: 5 }, "stpes"],
];

for (const [fields, param] of REFUSED)
  test(`${JSON.stringify(fields)} is refused, and ${param} named`, async () => {
    const { status, text } = await complete(fields);
    assert.equal(status, 400, text);
    const { error } = JSON.parse(text) as Schemas["OpenAIError"];
    assert.equal(error.param, param, text);
    assert.match(error.message, new RegExp(`^${param} `));
  });

test("best_of that equals n streams while the text grows, and costs what n costs", async () => {
  for (const best_of of [1, 2, 3]) {
    const fields = { n: best_of, best_of, order: "random" };
    const { best_of: _, ...plain } = fields;
    const streamed = dataOf((await complete({ ...fields, stream: true })).text);
    const without = dataOf((await complete({ ...plain, stream: true })).text);
    assert.equal(streamed.length, without.length);
    assert.ok(streamed.length > 3, `${streamed.length} events`);
    const { choices, usage } = JSON.parse((await complete(fields)).text);
    const expected = JSON.parse((await complete(plain)).text);
    assert.deepEqual([choices, usage], [expected.choices, expected.usage]);
  }
});

test("with include_usage, every chunk has usage, null in all but the last; without, none has", async () => {
  for (const fields of [{}, { n: 2 }, { prompt: ["a", "b"], echo: true }]) {
    const asked = { ...fields, stream: true, stream_options: { include_usage: true } };
    const events = dataOf((await complete(asked)).text);
    assert.equal(events.pop(), "[DONE]");
    const chunks = events.map((data) => JSON.parse(data));
    const last = chunks.pop();
    assert.deepEqual([last.choices, typeof last.usage.total_tokens], [[], "number"]);
    assert.ok(chunks.length > 1);
    for (const chunk of chunks) assert.equal(chunk.usage, null);
    for (const data of dataOf((await complete({ ...fields, stream: true })).text))
      assert.ok(data === "[DONE]" || !("usage" in JSON.parse(data)), data);
  }
});

test("a stream is not buffered by proxies", async () => {
  for (const url of ["/v1/completions", "/generate"]) {
    const payload =
      url === "/generate"
        ? { prompt: "a", length: 4, steps: 2 }
        : { model: engine.model.manifest.name, ...base, stream: true };
    const headers = { accept: "text/event-stream" };
    const answer = await app.inject({ method: "POST", url, payload, headers });
    assert.equal(answer.headers["x-accel-buffering"], "no", url);
    assert.equal(answer.headers["cache-control"], "no-store", url);
    assert.equal(answer.headers["content-type"], "text/event-stream; charset=utf-8", url);
  }
});

test("ignore_eos shows what comes after an end of text", async () => {
  const { endOfTextId } = engine.model.tokenizer.special;
  // An end of text is frequent among these draws of a flat distribution, or absent from all of them.
  let ended = 0;
  for (let seed = 0; seed < 40; seed++) {
    const fields = { seed, temperature: 2, max_tokens: 200, logprobs: 0 };
    const canvas = { prompt: base.prompt, length: 200, steps: base.steps, seed, temperature: 2 };
    const { samples } = await engine.submit(canvas).result;
    const { tokens } = samples[0]!;
    const at = tokens.indexOf(endOfTextId);
    if (at < 0 || at === tokens.length - 1) continue;
    ended++;
    const [cut] = choicesOf((await complete(fields)).text);
    const [whole] = choicesOf((await complete({ ...fields, ignore_eos: true })).text);
    assert.equal(cut!.finish_reason, "stop");
    assert.equal(whole!.finish_reason, "length");
    assert.ok(whole!.text.length > cut!.text.length);
    assert.equal(whole!.text, engine.model.tokenizer.decode(tokens, {}, true));
    if (ended === 3) return;
  }
  assert.ok(ended > 0, "no sample had an end of text");
});
