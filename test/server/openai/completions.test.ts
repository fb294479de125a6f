/** `/v1` with OpenAI's own client. */

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { Growth } from "../../../src/server/openai/growth.ts";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { post } from "../../support/http.ts";
import { serve } from "../support.ts";

const { engine, origin } = await serve();
const client = new OpenAI({ baseURL: `${origin}/v1`, apiKey: "none", maxRetries: 0 });
const model = engine.model.manifest.name;

const base = { max_tokens: 30, seed: 8 };
const check = validator("CompletionResponse");

/** The same through our own route. */
async function generate(body: object): Promise<Schemas["GenerateResponse"]> {
  const response = await post(`${origin}/generate`, body);
  assert.equal(response.status, 200);
  return (await response.json()) as Schemas["GenerateResponse"];
}

/** What the client puts beside the JSON body. */
const plain = ({ _request_id: _, ...body }: OpenAI.Completion & { _request_id?: unknown }) => body;

test("a completion equals the answer of /generate with the same seed", async () => {
  const completion = await client.completions.create({ model, prompt: "Once upon a time", ...base });
  assert.ok("value" in check(plain(completion)), JSON.stringify(check(plain(completion))));
  const { samples, usage } = await generate({ prompt: "Once upon a time", length: 30, seed: 8 });
  assert.equal(completion.choices[0]!.text, samples[0]!.text);
  assert.equal(completion.choices[0]!.finish_reason, samples[0]!.finish_reason);
  assert.deepEqual(completion.usage, {
    prompt_tokens: usage.prompt_tokens,
    completion_tokens: 30,
    total_tokens: usage.prompt_tokens + 30,
  });
  const effort = { ...base, reasoning_effort: "low" as const };
  const drafted = await client.completions.create({ model, prompt: "Once upon a time", ...effort });
  const eight = await generate({ prompt: "Once upon a time", length: 30, seed: 8, steps: 8 });
  assert.equal(drafted.choices[0]!.text, eight.samples[0]!.text);
  const short = await client.completions.create({ model, prompt: "A", seed: 1 });
  assert.equal(short.usage!.completion_tokens, 16);
});

test("prompts may be texts or ids, one or several, n each", async () => {
  const ids = engine.model.tokenizer.encode("The cat", 99)!;
  const [text, tokens, texts, lists] = await Promise.all(
    (["The cat", ids, ["The cat", "A dog"], [ids, ids.slice(1)]] as const).map((prompt) =>
      client.completions.create({ model, prompt: prompt as string, n: 2, ...base }),
    ),
  );
  assert.deepEqual(tokens!.choices, text!.choices);
  assert.deepEqual(
    texts!.choices.map(({ index }) => index),
    [0, 1, 2, 3],
  );
  assert.deepEqual(texts!.choices.slice(0, 2), text!.choices);
  assert.deepEqual(lists!.choices.slice(0, 2), text!.choices);
  assert.notEqual(text!.choices[0]!.text, text!.choices[1]!.text);
});

const REMASK = { remask: { mode: "random", rate: 0.2 } };
const GROWING: [object, least: number][] = [
  [{}, 8],
  [REMASK, 3],
  [{ ...REMASK, block_length: 6 }, 12],
  [{ order: "confidence", threshold: 0.2, block_length: 10 }, 8],
];
for (const [fields, least] of GROWING)
  test(`streamed text grows from the left; usage comes last, ${JSON.stringify(fields)}`, async () => {
    const body = { model, prompt: ["Once upon a time", "The cat"], n: 2, ...base, ...fields };
    const whole = await client.completions.create(body);
    const stream = await client.completions.create({
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = ["", "", "", ""];
    const ends: (string | null)[] = [];
    let chunks = 0;
    let usage: OpenAI.Completion["usage"];
    for await (const chunk of stream) {
      assert.ok("value" in check(chunk));
      usage = chunk.usage ?? usage;
      for (const { index, text, finish_reason } of chunk.choices) {
        texts[index] += text;
        chunks++;
        if (finish_reason) ends[index] = finish_reason;
      }
    }
    assert.deepEqual(
      texts,
      whole.choices.map(({ text }) => text),
    );
    assert.deepEqual(
      ends,
      whole.choices.map(({ finish_reason }) => finish_reason),
    );
    assert.ok(chunks > least, `only ${chunks} chunks`);
    assert.deepEqual(usage, whole.usage);
  });

test("streamed log-probabilities equal those of the whole answer, each with its text", async () => {
  for (const more of [{}, { echo: true }, { suffix: " The end.", stop: "e" }]) {
    const body = { model, prompt: "The dog", logprobs: 0, ...base, ...more };
    const whole = (await client.completions.create(body)).choices[0]!.logprobs!;
    const joined = { tokens: [] as string[], token_logprobs: [] as number[], text_offset: [] as number[] };
    let length = 0;
    for await (const { choices } of await client.completions.create({ ...body, stream: true })) {
      const { text, logprobs } = choices[0]!;
      for (const offset of logprobs!.text_offset!)
        assert.ok(offset >= length && offset < length + text.length);
      length += text.length;
      for (const key of ["tokens", "token_logprobs", "text_offset"] as const)
        joined[key].push(...(logprobs![key] as never[]));
    }
    assert.deepEqual({ ...joined, top_logprobs: null }, whole);
  }
});

test("an echoed prompt is streamed at once", async () => {
  const body = { model, prompt: "The ░ dog", echo: true, ...base };
  const whole = await client.completions.create(body);
  const texts: string[] = [];
  for await (const { choices } of await client.completions.create({ ...body, stream: true }))
    texts.push(choices[0]!.text);
  assert.equal(texts.join(""), whole.choices[0]!.text);
  assert.match(texts[0]!, /^The ░ dog/);
  assert.ok(texts[0]!.length < texts.join("").length / 2, JSON.stringify(texts));
});

test("with diffusing, each chunk is the whole text with masked positions", async () => {
  const body = { model, prompt: "Once upon a time", ...base };
  const whole = await client.completions.create(body);
  const stream = await client.completions.create({
    ...body,
    stream: true,
    diffusing: true,
  } as OpenAI.CompletionCreateParamsStreaming);
  const masks: number[] = [];
  let last = "";
  for await (const { choices } of stream) {
    last = choices[0]!.text;
    masks.push(last.split("░").length - 1);
  }
  assert.equal(last, whole.choices[0]!.text);
  assert.deepEqual(
    masks,
    masks.toSorted((a, b) => b - a),
  );
  assert.ok(masks[0]! > 10 && masks.at(-1) === 0);
});

test("suffix, echo, stop and log-probabilities behave as in OpenAI's API", async () => {
  const filled = await client.completions.create({
    model,
    prompt: "The ",
    suffix: " slept. The end.",
    ...base,
  });
  const { samples } = await generate({ template: "The {{mask:30}} slept. The end.", seed: 8 });
  assert.equal(filled.choices[0]!.text, samples[0]!.spans![0]);

  const completion = await client.completions.create({ model, prompt: "The dog", logprobs: 0, ...base });
  const { text, logprobs } = completion.choices[0]!;
  assert.equal(logprobs!.tokens!.join("").slice(0, text.length), text);
  assert.ok(logprobs!.token_logprobs!.every((value) => value <= 0));
  for (const [i, offset] of logprobs!.text_offset!.entries())
    assert.ok(text.startsWith(logprobs!.tokens![i]!, offset));
  const echoed = await client.completions.create({
    model,
    prompt: "The dog",
    echo: true,
    logprobs: 0,
    ...base,
  });
  assert.equal(echoed.choices[0]!.text, `The dog${text}`);
  // The prompt is scored before it.
  assert.deepEqual(echoed.choices[0]!.logprobs!.tokens, ["The", " dog", ...logprobs!.tokens!]);
  assert.deepEqual(echoed.choices[0]!.logprobs!.text_offset!.slice(0, 3), [0, 3, 7]);

  const stop = text.slice(9, 15);
  const stopped = await client.completions.create({ model, prompt: "The dog", stop, ...base });
  assert.equal(stopped.choices[0]!.text, text.slice(0, text.indexOf(stop)));
  assert.equal(stopped.choices[0]!.finish_reason, "stop");
  let streamed = "";
  const stream = await client.completions.create({ model, prompt: "The dog", stop, stream: true, ...base });
  for await (const { choices } of stream) streamed += choices[0]!.text;
  assert.equal(streamed, stopped.choices[0]!.text);
});

test("text that may be the start of a stop string is held back", () => {
  const growth = new Growth(["END", "NO"]);
  assert.equal(growth.take("ab░░"), "ab");
  assert.equal(growth.take("abE░"), "");
  assert.equal(growth.take("abEN░"), "");
  assert.equal(growth.take("abENE░"), "EN");
  assert.equal(growth.take("abENEx░N"), "Ex");
  assert.equal(growth.end("abENExN"), "N");
  assert.equal(growth.end("abENExN"), "");
});

test("/v1/models lists the served model", async () => {
  const models = [];
  for await (const card of client.models.list()) models.push(card.id);
  assert.deepEqual(models, [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
  await assert.rejects(client.models.retrieve("gpt-4"), OpenAI.NotFoundError);
});
