/** `/v2`, as a gateway would use it. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { FastifyInstance } from "fastify";
import { Engine } from "../../src/engine/engine.ts";
import { buildApp } from "../../src/server/app.ts";
import { type Schemas, validator } from "../../src/server/openapi.ts";
import { startEngine } from "../support/engine.ts";

let engine: Engine;
let app: FastifyInstance;
let model: string;
before(async () => {
  engine = await startEngine();
  app = await buildApp(engine);
  model = engine.model.manifest.name;
});
after(async () => {
  await app.close();
  await engine.pool.close();
});

async function get(url: string, schema: keyof Schemas, status = 200) {
  const response = await app.inject(url);
  assert.equal(response.statusCode, status);
  const body = response.json();
  assert.deepEqual(validator(schema)(body), { value: body });
  return body;
}

const infer = async (payload: object, name = model) => {
  const response = await app.inject({ method: "POST", url: `/v2/models/${name}/infer`, payload });
  return { status: response.statusCode, body: response.json() };
};

const input = (...data: string[]) => ({
  name: "text_input",
  shape: [data.length],
  datatype: "BYTES",
  data,
});

test("server, health and model are described", async () => {
  assert.equal((await get("/v2", "InferenceServer")).name, "didi-serve");
  assert.deepEqual(await get("/v2/health/live", "InferenceLive"), { live: true });
  assert.deepEqual(await get("/v2/health/ready", "InferenceReady"), { ready: true });
  assert.equal((await get(`/v2/models/${model}`, "InferenceModel")).inputs[0].name, "text_input");
  assert.deepEqual(await get(`/v2/models/${model}/ready`, "InferenceModelReady"), {
    name: model,
    ready: true,
  });
  assert.match((await get("/v2/models/other", "InferenceError", 404)).error, /other is not served here/);
  assert.match((await get("/v2/nothing", "InferenceError", 404)).error, /not a route/);
  const loading = await buildApp(new Engine(engine.model, engine.pool, engine.limits));
  assert.equal((await loading.inject("/v2/health/ready")).statusCode, 503);
  await loading.close();
});

test("a tensor of prompts is answered with a tensor of texts, those of /generate", async () => {
  const prompts = ["Once upon a time", "The cat"];
  const parameters = { length: 20, steps: 6, seed: 3 };
  const { status, body } = await infer({ id: "x", inputs: [input(...prompts)], parameters });
  assert.equal(status, 200);
  assert.deepEqual(validator("InferenceResponse")(body), { value: body });
  const [output] = (body as Schemas["InferenceResponse"]).outputs;
  assert.deepEqual([body.id, output!.name, output!.shape], ["x", "text_output", [2]]);
  for (const [i, prompt] of prompts.entries()) {
    const { samples } = await engine.submit({ prompt, temperature: 1, ...parameters }).result;
    assert.equal(output!.data[i], samples[0]!.text);
  }
});

test("what does not fit is refused with the field", async () => {
  const refused = async (payload: object, says: RegExp, status = 400) => {
    const { status: got, body } = await infer(payload);
    assert.equal(got, status);
    assert.match((body as Schemas["InferenceError"]).error, says);
  };
  await refused({}, /\/inputs is required/);
  await refused({ inputs: [{ ...input("a"), datatype: "FP32" }] }, /\/inputs\/0\/datatype must be "BYTES"/);
  await refused({ inputs: [{ ...input("a"), name: "x" }] }, /\/inputs\/0\/name must be text_input/);
  await refused(
    { inputs: [{ ...input("a"), shape: [2] }] },
    /\/inputs\/0\/shape must be the number of texts/,
  );
  await refused({ inputs: [input("a")], parameters: { stpes: 1 } }, /\/parameters\/stpes is not a field/);
  await refused({ inputs: [input("a ".repeat(999))] }, /\/prompt has/, 413);
  assert.equal((await infer({ inputs: [input("a")] }, "other")).status, 404);
});
