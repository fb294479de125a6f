/** Paths: a trailing or doubled slash is ignored, and an unknown path says what exists. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { CONTRACT } from "../../src/server/openapi.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { serve } from "./support.ts";

const { engine, app } = await serve({}, TINY_GUIDED);

/** Every path of the contract, with the model that is served. */
const paths = () =>
  Object.keys(CONTRACT.paths).map((path) => path.replace("{model}", engine.model.manifest.name));

test("every route answers the same with a slash after its path, or with two inside it", async () => {
  for (const path of paths()) {
    if (path === "/") continue;
    const { statusCode } = await app.inject(path);
    for (const other of [`${path}/`, path.replace(/\/([^/]+)$/, "//$1"), `/${path}`])
      assert.equal((await app.inject(other)).statusCode, statusCode, other);
  }
});

test("a completion is answered at every way to join a base address and a path", async () => {
  const payload = { model: engine.model.manifest.name, prompt: "a", max_tokens: 4, steps: 2, seed: 1 };
  for (const url of ["/v1/completions", "/v1/completions/", "/v1//completions", "//v1/completions?x=1"])
    assert.equal((await app.inject({ method: "POST", url, payload })).statusCode, 200, url);
});

/** Paths that are none, and what the answer must name. */
const UNKNOWN: [method: "GET" | "POST", url: string, names: string[]][] = [
  ["POST", "/completions", ["POST /v1/completions"]],
  ["POST", "/v1/complete", ["POST /v1/completions", "GET /v1/models"]],
  ["GET", "/models", ["GET /v1/models"]],
  ["POST", "/v1/v1/chat/completions", ["POST /v1/chat/completions"]],
  ["POST", "/v2/models/x/generate", ["POST /generate"]],
  ["GET", "/health", ["GET /healthz", "GET /readyz"]],
  ["POST", "/api/generate/", ["POST /generate"]],
];

for (const [method, url, names] of UNKNOWN)
  test(`${method} ${url} says that there is ${names.join(" and ")}`, async () => {
    const answer = await app.inject({ method, url });
    assert.equal(answer.statusCode, 404);
    for (const name of names) assert.ok(answer.body.includes(name), answer.body);
    assert.doesNotMatch(answer.body, /--admin-port/);
  });

test("chat is refused with the reason, in the shape of OpenAI's errors", async () => {
  const { name } = engine.model.manifest;
  for (const url of ["/v1/chat/completions", "/v1/chat/completions/"])
    for (const payload of [
      { model: name, messages: [{ role: "user", content: "hi" }] },
      { model: name, messages: [], stream: true, max_completion_tokens: 5 },
      {},
    ]) {
      const answer = await app.inject({ method: "POST", url, payload });
      assert.equal(answer.statusCode, 404);
      const { error } = answer.json();
      assert.equal(
        error.message,
        `${name} has no chat template, because it continues text: POST /v1/completions with the text as prompt`,
      );
      assert.deepEqual([error.type, error.code], ["invalid_request_error", "not-found"]);
    }
});
