import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "../../src/engine/engine.ts";
import { defaultsOf } from "../../src/model/manifest.ts";
import { type Schemas, validator } from "../../src/server/openapi.ts";
import { dataOf, post } from "../support/http.ts";
import { build, serve } from "./support.ts";

const { engine, app, origin } = await serve({ maxActive: 4, maxQueue: 4 });

const checkResponse = validator("GenerateResponse");
const checkProblem = validator("Problem");

const generate = (body: object | string, headers?: Record<string, string>, signal?: AbortSignal) =>
  post(`${origin}/generate`, body, headers, signal);

async function problemOf(response: Response): Promise<Schemas["Problem"]> {
  assert.match(response.headers.get("content-type")!, /^application\/problem\+json/);
  const body = (await response.json()) as Schemas["Problem"];
  assert.deepEqual(checkProblem(body), { value: body });
  assert.equal(body.status, response.status);
  assert.ok(body.request_id);
  return body;
}

test("the answer to a prompt fits the contract", async () => {
  const response = await generate({
    prompt: "Once upon a time",
    length: 40,
    steps: 8,
    seed: 5,
    temperature: 0.9,
  });
  assert.equal(response.status, 200);
  const body = (await response.json()) as Schemas["GenerateResponse"];
  assert.deepEqual(checkResponse(body), { value: body });
  assert.equal(body.seed, 5);
  assert.equal(body.model, engine.model.manifest.name);
  assert.equal(body.samples[0]!.tokens.length, 40);
  assert.equal(body.usage.completion_tokens, 40);
  assert.ok(body.usage.student_passes >= 1 && body.usage.student_passes <= 8);
  assert.ok(!body.samples[0]!.text.startsWith("Once upon a time"));
  assert.ok(body.timing.total_ms >= body.timing.compute_ms);
});

test("defaults are 16 steps, the model's temperature and top_p, and a drawn seed, which reproduces the text", async () => {
  const first = (await (await generate({ prompt: "" })).json()) as Schemas["GenerateResponse"];
  assert.equal(first.usage.steps, 16);
  assert.equal(first.usage.completion_tokens, 128);
  const { order, temperature, top_k, top_p } = defaultsOf(engine.model.manifest);
  const own = { order, temperature, top_k, top_p };
  const again = (await (
    await generate({ prompt: "", seed: first.seed, steps: 16, length: 128, ...own })
  ).json()) as typeof first;
  assert.deepEqual(again.samples, first.samples);
});

test("finish_reason is stop if and only if an end of text was generated", async () => {
  const end = engine.model.manifest.end_of_text_token_id;
  const seen = new Set<string>();
  for (let seed = 0; seed < 12 && seen.size < 2; seed++) {
    const prompt = "They were happy. The end. They all went home and lived happily ever after.";
    const { samples } = (await (
      await generate({ prompt, length: 60, steps: 8, seed })
    ).json()) as Schemas["GenerateResponse"];
    const { tokens, text, finish_reason } = samples[0]!;
    const at = tokens.indexOf(end);
    assert.equal(finish_reason, at >= 0 ? "stop" : "length");
    assert.equal(text, engine.model.tokenizer.decode(at >= 0 ? tokens.slice(0, at) : tokens));
    seen.add(finish_reason);
  }
  assert.ok(seen.has("stop"), "no sample ended, so the test shows nothing");
});

const REFUSED: [
  name: string,
  body: object | string,
  status: number,
  path: string | undefined,
  type: string,
][] = [
  ["broken JSON", '{"prompt": ', 400, undefined, "invalid-json"],
  ["a body that is no object", "[]", 400, "", "invalid-request"],
  ["a prompt of the wrong type", { prompt: 7 }, 400, "/prompt", "invalid-request"],
  ["an unknown field", { prompt: "", stpes: 4 }, 400, "/stpes", "invalid-request"],
  ["__proto__", '{"prompt": "", "__proto__": {"steps": 1}}', 400, undefined, "invalid-json"],
  ["no steps", { prompt: "", steps: 0 }, 400, "/steps", "invalid-request"],
  ["too many steps", { prompt: "", steps: 1025 }, 400, "/steps", "invalid-request"],
  ["half a step", { prompt: "", steps: 1.5 }, 400, "/steps", "invalid-request"],
  ["length 0", { prompt: "", length: 0 }, 400, "/length", "invalid-request"],
  ["a length beyond the context", { prompt: "", length: 257 }, 400, "/length", "invalid-request"],
  ["a negative seed", { prompt: "", seed: -1 }, 400, "/seed", "invalid-request"],
  ["a seed that JSON cannot hold", { prompt: "", seed: 2 ** 53 }, 400, "/seed", "invalid-request"],
  ["an infinite temperature", '{"prompt": "", "temperature": 1e400}', 400, "/temperature", "invalid-request"],
  ["a prompt beyond the context", { prompt: "tree ".repeat(400) }, 413, "/prompt", "too-large"],
  ["a body beyond the limit", { prompt: "x".repeat(1_100_000) }, 413, undefined, "too-large"],
];

for (const [name, body, status, path, type] of REFUSED)
  test(`${name} gets ${status} with the wrong field`, async () => {
    const response = await generate(body);
    assert.equal(response.status, status);
    const problem = await problemOf(response);
    assert.equal(problem.type, `urn:didi-serve:problem:${type}`);
    assert.equal(problem.errors?.[0]?.path, path);
  });

test("an unknown route, a broken URL and a WebSocket route without an upgrade are problems too", async () => {
  assert.equal((await problemOf(await fetch(`${origin}/generat`))).status, 404);
  assert.equal((await problemOf(await fetch(`${origin}/%zz`))).status, 400);
  assert.equal((await problemOf(await fetch(`${origin}/generate/stream`))).status, 426);
});

test("another method gets 405 with the allowed ones", async () => {
  for (const [method, path, allow] of [
    ["PUT", "/generate", "GET, HEAD, POST"],
    ["DELETE", "/healthz", "GET, HEAD"],
    ["PUT", "/v1/models/any", "GET, HEAD"],
    ["PATCH", "/v2/models/any/infer", "POST"],
  ] as const) {
    const response = await fetch(`${origin}${path}`, { method });
    assert.equal(response.status, 405);
    assert.equal(response.headers.get("allow"), allow);
  }
  const response = await app.inject({ method: "TRACE", url: "/metrics" });
  assert.equal(response.statusCode, 405);
});

test("a full queue gives 429 with Retry-After, and every accepted request is answered", async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => generate({ prompt: "", length: 128, steps: 64 })),
  );
  const refused = answers.filter(({ status }) => status === 429);
  assert.ok(refused.length > 0);
  assert.equal(answers.filter(({ status }) => status === 200).length, 20 - refused.length);
  for (const response of refused) {
    const seconds = Number(response.headers.get("retry-after"));
    assert.ok(seconds >= 1);
    const { type, retry_after } = await problemOf(response);
    assert.match(type, /overloaded$/);
    assert.equal(retry_after, seconds);
  }
});

test("before the model is loaded the server is alive but not ready, with Retry-After", async () => {
  const loading = new Engine(engine.model, engine.pool, engine.limits);
  const early = await build(loading);
  assert.equal((await early.inject("/healthz")).statusCode, 200);
  assert.equal((await early.inject("/readyz")).statusCode, 503);
  const refused = await early.inject({ method: "POST", url: "/generate", payload: { prompt: "" } });
  assert.equal(refused.statusCode, 503);
  assert.equal(refused.headers["retry-after"], "1");
  await loading.warmUp();
  assert.equal((await early.inject("/readyz")).statusCode, 200);
});

test("a template with choices is answered and streamed with what was chosen", async () => {
  const body = { template: "The {{choice:dog|spoon}} barked{{mask:4}}.", steps: 3, seed: 5 };
  const answer = (await (await generate(body)).json()) as Schemas["GenerateResponse"];
  assert.deepEqual(checkResponse(answer), { value: answer });
  assert.equal(answer.choices![0]!.text, "dog");
  const events = await (await generate(body, { accept: "text/event-stream" })).text();
  const data = dataOf(events).map((json) => JSON.parse(json));
  for (const event of data) assert.deepEqual(validator("ServerEvent")(event), { value: event });
  assert.deepEqual(data.at(-1).choices, answer.choices);
  assert.deepEqual(data[0].spans, [{ start: 3, length: 4 }]);
  assert.deepEqual(data.at(-1).samples, answer.samples);

  const bad = await problemOf(await generate({ ...body, choose: "draw", seed: undefined }));
  assert.equal(bad.errors![0]!.path, "/seed");
});
