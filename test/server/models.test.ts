/** Several models in one server: each interface takes the name of a model, and loads it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Schemas } from "../../src/server/openapi.ts";
import { post } from "../support/http.ts";
import { MASK, PLAIN, startRegistry } from "../support/models.ts";
import { until } from "../support/until.ts";
import { TestKeys } from "./access/support.ts";
import { listen, StreamClient } from "./support.ts";

const models = await startRegistry([PLAIN, MASK], { maxLoaded: 1, retryMs: 0 });
const { origin } = await listen(models);
const [plain, mask] = models.models;

const get = (path: string) => fetch(`${origin}${path}`);
const send = (path: string, body: object) => post(`${origin}${path}`, body);
const SHORT = { prompt: "Once", length: 8, steps: 2, seed: 1 };

/** Hold the first model until the returned function is called, so that it cannot be unloaded. */
function hold(): () => void {
  let release = () => {};
  const task = () =>
    new Promise<void>((end) => {
      release = end;
    });
  void models.use(plain!, new AbortController().signal, task);
  return () => release();
}

/** Return the states of the models, as clients see them. */
async function states(): Promise<string[]> {
  const { data } = (await (await get("/v1/models")).json()) as Schemas["ModelList"];
  assert.deepEqual(
    data.map(({ id }) => id),
    ["tiny-plain", "tiny-mask"],
  );
  return data.map(({ state }) => state);
}

test("what needs no workers is answered without a load", async () => {
  const { name } = (await (await get("/model?model=tiny-mask")).json()) as Schemas["ModelInfo"];
  assert.equal(name, "tiny-mask");
  const tokenized = await send("/tokenize", { model: "tiny-mask", prompt: "Once" });
  const { tokens } = (await tokenized.json()) as Schemas["TokenizeResponse"];
  const text = await (await send("/detokenize", { model: "tiny-mask", tokens })).json();
  assert.deepEqual(text, { prompt: "Once" });
  assert.deepEqual(await states(), ["loaded", "unloaded"]);
});

test("readiness is that of the server, or of the model that is asked about", async () => {
  for (const [path, status] of [
    ["/readyz", 200],
    ["/readyz?model=tiny-plain", 200],
    ["/readyz?model=tiny-mask", 503],
    ["/readyz?model=nobody", 404],
    ["/readyz?model=tiny-plain&model=tiny-mask", 400],
    ["/v2/models/tiny-plain/ready", 200],
    ["/v2/models/tiny-mask/ready", 503],
    ["/v2/models/nobody/ready", 404],
  ] as const)
    assert.equal((await get(path)).status, status, path);
});

test("an unknown model is 404 in the form of each API", async () => {
  const openai = await send("/v1/completions", { model: "nobody", prompt: "Once" });
  assert.equal(openai.status, 404);
  const { error } = (await openai.json()) as Schemas["OpenAIError"];
  assert.match(error.message, /nobody is not served here: GET \/v1\/models lists/);
  const own = await send("/generate", { ...SHORT, model: "nobody" });
  assert.equal(own.status, 404);
  assert.match(((await own.json()) as Schemas["Problem"]).detail, /nobody is not served here/);
  const socket = await StreamClient.connect(origin);
  socket.send({ type: "generate", id: "a", ...SHORT, model: "nobody" });
  const end = await socket.end("a");
  assert.ok(end.type === "error" && end.error.status === 404);
  socket.socket.close();
});

test("a cancel and a lost connection end the wait for a model, and another request overtakes it", async () => {
  const release = hold();
  const socket = await StreamClient.connect(origin);
  socket.send({ type: "generate", id: "waits", ...SHORT, model: "tiny-mask" });
  const gone = new AbortController();
  const lost = post(`${origin}/generate`, { ...SHORT, model: "tiny-mask" }, {}, gone.signal);
  await until("both wait", () => mask!.waiting === 2);
  gone.abort();
  await assert.rejects(lost);
  socket.send({ type: "cancel", id: "waits" });
  const end = await socket.end("waits");
  assert.ok(end.type === "error" && end.error.status === 499);
  await until("none waits", () => mask!.waiting === 0);
  // The id can be used again, and nothing was unloaded.
  socket.send({ type: "generate", id: "waits", ...SHORT, model: "tiny-plain" });
  assert.equal((await socket.find((event) => event.type === "done")).model, "tiny-plain");
  socket.socket.close();
  release();
  assert.deepEqual(await states(), ["loaded", "unloaded"]);
});

test("a request that waits for a model has a place of its key", async () => {
  const { ring, keys } = await TestKeys.create({ alice: { concurrent_requests: 1 } });
  const guarded = await listen(models, { access: { keys: ring } });
  const headers = { authorization: `Bearer ${keys.alice}` };
  const ask = () => post(`${guarded.origin}/generate`, { ...SHORT, model: "tiny-mask" }, headers);
  const release = hold();
  const waiting = ask();
  await until("it waits", () => mask!.waiting > 0);
  const refused = await ask();
  assert.equal(refused.status, 429);
  assert.equal(((await refused.json()) as Schemas["Problem"]).limit, "concurrent_requests");
  release();
  assert.equal((await waiting).status, 200);
  // Its place is free again.
  assert.equal((await ask()).status, 200);
});

test("each interface runs the model that it names, and metrics tell them apart", async () => {
  const url = encodeURIComponent(JSON.stringify({ ...SHORT, model: "tiny-mask" }));
  const asks: [string, () => Promise<Response>][] = [
    ["/generate", () => send("/generate", { ...SHORT, model: "tiny-mask" })],
    ["GET /generate", () => get(`/generate?request=${url}`)],
    [
      "/v1/completions",
      () => send("/v1/completions", { model: "tiny-mask", prompt: "Once", max_tokens: 8, steps: 2 }),
    ],
    [
      "/v2",
      () =>
        send("/v2/models/tiny-mask/infer", {
          inputs: [{ name: "text_input", datatype: "BYTES", shape: [1], data: ["Once"] }],
          parameters: { length: 8, steps: 2 },
        }),
    ],
  ];
  for (const [name, ask] of asks) {
    const response = await ask();
    assert.equal(response.status, 200, name);
    const answer = (await response.json()) as { model?: string; model_name?: string };
    assert.equal(answer.model ?? answer.model_name, "tiny-mask", name);
  }
  assert.deepEqual(await states(), ["unloaded", "loaded"]);
  // Without a name the first model answers, and is loaded again.
  const first = (await (await send("/generate", SHORT)).json()) as Schemas["GenerateResponse"];
  assert.equal(first.model, "tiny-plain");
  const metrics = await (await get("/metrics")).text();
  for (const line of [
    /^didi_model_loaded\{model="tiny-plain"\} 1$/m,
    /^didi_model_loaded\{model="tiny-mask"\} 0$/m,
    /^didi_model_load_seconds_count\{model="tiny-mask"\} [1-9]/m,
    /^didi_model_load_failures_total\{model="tiny-mask"\} 0$/m,
    /^didi_requests_total\{model="tiny-mask",outcome="done"\} [4-9]$/m,
    /^didi_queue_length\{model="tiny-mask"\} 0$/m,
    /^didi_healthy_workers\{model="tiny-plain"\} 1$/m,
    /^didi_ready 1$/m,
  ])
    assert.match(metrics, line);
  // A model that is not loaded has no workers that could be missing.
  assert.doesNotMatch(metrics, /^didi_workers\{model="tiny-mask"/m);
});
