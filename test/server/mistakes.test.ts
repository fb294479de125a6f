/** The likeliest mistakes, each with its whole answer: what is wrong, the value, the limit and what to do. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { TestKeys } from "./access/support.ts";
import { build, serve } from "./support.ts";

const MODEL = "stories-didi";

const { engine, origin } = await serve();
assert.equal(engine.model.manifest.name, MODEL);

type Headers = Record<string, string>;

/** Send a body, JSON unless it is text; return the status and the answer without its request id. */
async function send(url: string, body: unknown, headers: Headers = {}, method = "POST") {
  const isText = typeof body === "string";
  const response = await fetch(`${origin}${url}`, {
    method,
    headers: { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
    ...(body !== undefined && { body: isText ? body : JSON.stringify(body) }),
  });
  const { request_id: _, ...answer } = (await response.json()) as Record<string, unknown>;
  return { status: response.status, answer };
}

/** A mistake at /v1/completions beside a right prompt: fields, status, `param`, message. */
const COMPLETIONS: [
  mistake: string,
  fields: object,
  status: number,
  param: string | null,
  message: string,
][] = [
  ["wrong model", { model: "gpt-4" }, 404, null, `the model gpt-4 is not served here: it is ${MODEL}`],
  [
    "no model",
    { model: undefined },
    400,
    "model",
    "model is required: GET /v1/models names the model that is served",
  ],
  [
    "max_tokens above the context",
    { max_tokens: 4096 },
    400,
    "max_tokens",
    "max_tokens asks for 4096 new tokens, and with a prompt of 1 they do not fit the context of 256: at " +
      "most 255",
  ],
  [
    "messages sent to completions",
    { prompt: undefined, messages: [{ role: "user", content: "a" }] },
    400,
    "messages",
    "messages belongs to chat, and this model continues text: send the text as prompt; prompt is required",
  ],
  ["n above the limit", { n: 100 }, 400, "n", "n must be <= 16, and is 100"],
  ["seed as a string", { seed: "7" }, 400, "seed", 'seed must be integer, and is "7": leave out the quotes'],
  ["temperature too high", { temperature: 5 }, 400, "temperature", "temperature must be <= 2, and is 5"],
  [
    "a prompt longer than the context",
    { prompt: "word ".repeat(300) },
    413,
    "prompt",
    `prompt has 302 tokens, and ${MODEL} has a context of 256: shorten it`,
  ],
  [
    "ids of another tokenizer",
    { prompt: [464, 50256] },
    400,
    "prompt.1",
    `prompt.1 must be below 4095, the id of the mask of ${MODEL}, and is 50256: use the ids of its ` +
      "tokenizer, or send text",
  ],
  [
    "too many prompts",
    { prompt: Array(17).fill("a") },
    400,
    "prompt",
    "prompt must NOT have more than 16 items, and is 17 long",
  ],
  [
    "too many stop strings",
    { stop: ["a", "b", "c", "d", "e"] },
    400,
    "stop",
    "stop must NOT have more than 4 items, and is 5 long",
  ],
  ["too many alternatives", { logprobs: 6 }, 400, "logprobs", "logprobs must be <= 5, and is 6"],
  ["best_of below n", { n: 3, best_of: 2 }, 400, "best_of", "best_of must be at least n, which is 3"],
  [
    "a penalty",
    { frequency_penalty: 0.5 },
    400,
    "frequency_penalty",
    "frequency_penalty must be 0 or absent, and is 0.5",
  ],
  [
    "usage asked for without a stream",
    { stream_options: { include_usage: true } },
    400,
    "stream_options",
    "stream_options include_usage has no effect without stream: the answer has usage anyway",
  ],
];

const CODES: Record<number, string> = { 400: "invalid-request", 404: "not-found", 413: "too-large" };

for (const [mistake, fields, status, param, message] of COMPLETIONS)
  test(`/v1/completions: ${mistake}`, async () => {
    const { status: got, answer } = await send("/v1/completions", { model: MODEL, prompt: "a", ...fields });
    const code = CODES[status]!;
    assert.deepEqual(answer, { error: { message, type: "invalid_request_error", param, code } });
    assert.equal(got, status);
  });

/** A mistake at /generate: body, field, what is wrong with it. */
const GENERATE: [mistake: string, body: object, path: string, message: string][] = [
  [
    "a template without spans",
    { template: "no spans" },
    "/template",
    "has no span to fill: write one as {{mask:N}}, or send a prompt instead",
  ],
  [
    "a span without a length",
    { template: "a {{mask}} b" },
    "/template",
    'has "{{mask}} b", which is not a span: write {{mask:N}} with N of at least 1, or {{choice:a|b}}',
  ],
  [
    "nothing to continue",
    {},
    "/prompt",
    "is missing: give the text to continue, or /prompt_tokens, /template or /tokens",
  ],
  ["too many steps", { prompt: "a", steps: 5000 }, "/steps", "must be <= 1024, and is 5000"],
  [
    "steps as a string",
    { prompt: "a", steps: "16" },
    "/steps",
    'must be integer or must be "auto", and is "16": leave out the quotes',
  ],
  [
    "a trace that is too large",
    { prompt: "a", n: 16, length: 200, steps: 1024, trace: true },
    "/trace",
    "would hold 16384 texts of 201 tokens, and may hold 262144 tokens: ask for fewer steps or samples, or " +
      "stream the " +
      "steps instead",
  ],
  [
    "a canvas without a mask",
    { tokens: [1, 2, 3] },
    "/tokens",
    "has no masked position: put 4095 where text should be generated",
  ],
];

for (const [mistake, body, path, message] of GENERATE)
  test(`/generate: ${mistake}`, async () => {
    const { status, answer } = await send("/generate", body);
    const errors = [{ path, message }];
    const detail = `${path} ${message}`;
    const type = "urn:didi-serve:problem:invalid-request";
    assert.deepEqual(answer, { type, title: "The request is not valid", status: 400, detail, errors });
    assert.equal(status, 400);
  });

test("no JSON: a form, a wrong quote, nothing", async () => {
  const { answer: form } = await send("/generate", "prompt=a", {
    "content-type": "application/x-www-form-urlencoded",
  });
  assert.equal(form.detail, "send content-type: application/json");
  const { answer: quote } = await send("/generate", "{prompt: 'a'}");
  assert.match(String(quote.detail), /^the body cannot be parsed: Expected property name .* at position 1/);
  const { answer: nothing } = await send("/generate", "");
  assert.equal(nothing.detail, "the body is empty; send a JSON object");
});

test("a route that is none, and a method that a route does not take", async () => {
  const { answer } = await send("/v1/embeddings", { model: MODEL, input: "a" });
  const { error } = answer as { error: { message: string } };
  assert.equal(
    error.message,
    "POST /v1/embeddings is not a route: there is POST /v1/completions, POST /v1/chat/completions, " +
      "GET /v1/models, " +
      "GET /v1/models/{model} (see /openapi.yaml)",
  );
  const { status, answer: get } = await send("/v1/completions", undefined, {}, "GET");
  assert.equal(status, 405);
  assert.deepEqual(get, {
    error: {
      message: "/v1/completions allows POST, not GET",
      type: "invalid_request_error",
      param: null,
      code: "method-not-allowed",
    },
  });
});

test("a key that is missing, wrong, or in the address", async () => {
  const { ring } = await TestKeys.create({ alice: {} });
  const closed = await build(engine, { access: { keys: ring } });
  const message = async (url: string, headers: Headers) =>
    (await closed.inject({ url, headers })).json().error.message as string;
  const how = "send Authorization: Bearer KEY, or X-API-Key: KEY";
  assert.equal(await message("/v1/models", {}), `this server requires an API key: ${how}`);
  assert.equal(
    await message("/v1/models", { authorization: "Bearer sk-1" }),
    "unknown API key: it may be mistyped, revoked or expired",
  );
  assert.equal(
    await message("/v1/models", { authorization: "Basic YTpi" }),
    `the Authorization header holds no key: ${how}`,
  );
  assert.match(await message("/v1/models?api_key=x", {}), /must not hold a key \(api_key\)/);
});

test("TLS to the port of plain HTTP is answered with the scheme, in plain HTTP", async () => {
  const socket = connect(Number(new URL(origin).port), "127.0.0.1");
  await once(socket, "connect");
  // The start of a ClientHello.
  socket.write(Buffer.from("16030100c8010000c40303", "hex"));
  let text = "";
  for await (const chunk of socket) text += chunk;
  assert.match(text, /^HTTP\/1\.1 400 /);
  assert.match(
    text,
    /this port takes plain HTTP: begin the address with http:\/\/, or start the server with --tls-cert and --tls-key/,
  );
});
