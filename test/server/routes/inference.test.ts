/** The Open Inference Protocol of `/v2`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "../../../src/engine/engine.ts";
import { bytesOf } from "../../../src/server/inference/tensors.ts";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { build, serve } from "../support.ts";

const { engine, app, origin } = await serve();
const model = engine.model.manifest.name;

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
  const loading = await build(new Engine(engine.model, engine.pool, engine.limits));
  assert.equal((await loading.inject("/v2/health/ready")).statusCode, 503);
});

test("a tensor of prompts gives a tensor of texts equal to those of /generate", async () => {
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

test("an invalid request is refused with the wrong field", async () => {
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

/** Post a body as Triton's client does, with what it sends for binary tensors, or without a Content-Type. */
async function post(body: Buffer, headers: Record<string, string | number> = {}, url = "infer") {
  // `inject` would add a Content-Type.
  const response = await fetch(`${origin}/v2/models/${model}/${url}`, {
    method: "POST",
    body: new Uint8Array(body),
    headers: Object.entries(headers).map(([name, value]): [string, string] => [name, `${value}`]),
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  const length = response.headers.get("inference-header-content-length");
  const end = length === null ? bytes.length : Number(length);
  return {
    status: response.status,
    json: JSON.parse(bytes.subarray(0, end).toString()),
    rest: bytes.subarray(end),
  };
}

/** Return texts as a binary tensor, and its bytes. */
function binary(...texts: string[]): [tensor: object, bytes: Buffer] {
  const bytes = bytesOf(texts);
  const { data: _, ...tensor } = input(...texts);
  return [{ ...tensor, parameters: { binary_data_size: bytes.length } }, bytes];
}

/** Return a request with binary tensors: the body and its headers. */
function request(json: object, bytes: Buffer): [Buffer, Record<string, number>] {
  const head = Buffer.from(JSON.stringify(json));
  return [Buffer.concat([head, bytes]), { "inference-header-content-length": head.length }];
}

const settings = { length: 12, steps: 3, seed: 3 };

for (const texts of [["Once upon a time"], ["", "A dog"], ["Zoë and 😀", "x".repeat(60), "\n"]])
  test(`binary tensors of ${texts.length} texts are answered as those in JSON are`, async () => {
    const plain = (await infer({ inputs: [input(...texts)], parameters: settings })).body;
    const [tensor, bytes] = binary(...texts);
    const expected = bytesOf(plain.outputs[0].data);
    for (const extra of [
      { parameters: { ...settings, binary_data_output: true } },
      { parameters: settings, outputs: [{ name: "text_output", parameters: { binary_data: true } }] },
    ]) {
      const answer = await post(...request({ id: "7", inputs: [tensor], ...extra }, bytes));
      assert.equal(answer.status, 200, JSON.stringify(answer.json));
      assert.deepEqual(answer.rest, expected);
      const { data: _, ...output } = plain.outputs[0];
      const parameters = { binary_data_size: expected.length };
      assert.deepEqual(answer.json, { ...plain, id: "7", outputs: [{ ...output, parameters }] });
    }
    const inJson = [{ name: "text_output", parameters: { binary_data: false } }];
    const mixed = await post(...request({ inputs: [tensor], outputs: inJson, parameters: settings }, bytes));
    assert.deepEqual([mixed.json.outputs, mixed.rest.length], [plain.outputs, 0]);
  });

test("a body without a Content-Type is JSON, unless a page sends it", async () => {
  const body = Buffer.from(JSON.stringify({ inputs: [input("a")], parameters: settings }));
  const plain = (await infer(JSON.parse(body.toString()))).body;
  for (const headers of [
    {},
    { "content-type": "application/json" },
    { "content-type": "application/octet-stream" },
  ])
    assert.deepEqual((await post(body, headers)).json.outputs, plain.outputs);
  for (const headers of [
    { origin: "https://evil.example" },
    { "content-type": "text/plain" },
    { "content-type": "application/x-www-form-urlencoded" },
  ])
    assert.equal((await post(body, headers)).status, 415, JSON.stringify(headers));
});

test("version 1 is the model, and every other version is 404", async () => {
  const body = Buffer.from(JSON.stringify({ inputs: [input("a")], parameters: settings }));
  const plain = await post(body);
  assert.deepEqual(plain.json.model_version, "1");
  assert.deepEqual((await post(body, {}, "versions/1/infer")).json.outputs, plain.json.outputs);
  assert.deepEqual((await get(`/v2/models/${model}/versions/1`, "InferenceModel")).versions, ["1"]);
  await get(`/v2/models/${model}/versions/1/ready`, "InferenceModelReady");
  for (const version of ["2", "01", "latest"]) {
    assert.match(
      (await post(body, {}, `versions/${version}/infer`)).json.error,
      /has no version .*: it is 1/,
    );
    await get(`/v2/models/${model}/versions/${version}`, "InferenceError", 404);
  }
});

test("tensors may have dimensions of one, and the answer has the same shape", async () => {
  for (const shape of [[2], [2, 1], [1, 2], [1, 2, 1]]) {
    const { status, body } = await infer({ inputs: [{ ...input("a", "b"), shape }], parameters: settings });
    assert.equal(status, 200, JSON.stringify(body));
    assert.deepEqual(body.outputs[0].shape, shape);
  }
  for (const shape of [[1], [3, 1], [2, 2]]) {
    const { body } = await infer({ inputs: [{ ...input("a", "b"), shape }], parameters: settings });
    assert.match(body.error, /shape must be the number of texts, \[2\], and is/);
  }
});

test("binary tensors that are damaged are refused with what is wrong", async () => {
  const [tensor, bytes] = binary("Once", "upon");
  const whole = { inputs: [tensor], parameters: settings };
  const refused = async (sent: [Buffer, Record<string, string | number>], says: RegExp) => {
    const { status, json } = await post(...sent);
    assert.equal(status, 400);
    assert.match(json.error, says);
  };
  await refused(request(whole, bytes.subarray(0, -1)), /binary_data_size must be at most 15, .* and is 16/);
  await refused(
    request(whole, Buffer.concat([bytes, bytes])),
    /16 bytes of binary data, and 32 bytes follow/,
  );
  const long = Buffer.from(bytes);
  long.writeUInt32LE(2 ** 31, 8);
  await refused(request(whole, long), /is cut off: text 1, at byte 8 of 16/);
  const broken = Buffer.from(bytes);
  broken[5] = 0xff;
  await refused(request(whole, broken), /is not UTF-8 in text 0/);
  for (const length of ["-1", "x", "99999", ""])
    await refused(
      [request(whole, bytes)[0], { "inference-header-content-length": length }],
      /Content-Length must be/,
    );
});
