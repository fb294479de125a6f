import assert from "node:assert/strict";
import { test } from "node:test";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { startEngine, TEACHER, TINY_GUIDED } from "../../support/engine.ts";
import { build, serve } from "../support.ts";

const checkModel = validator("ModelInfo");

const { app } = await serve({}, TEACHER);

test("GET /model describes the model, without guidance if it has no discriminator", async () => {
  const body = (await app.inject("/model")).json<Schemas["ModelInfo"]>();
  assert.deepEqual(checkModel(structuredClone(body)), { value: body });
  assert.equal(body.name, TEACHER);
  assert.equal(body.context_length, 256);
  assert.equal(body.guidance, undefined);
  assert.deepEqual(body.defaults, { order: "spread", temperature: 1, top_k: 0, top_p: 1 });
});

test("GET /model has the default guidance", async () => {
  const guided = await startEngine({}, TINY_GUIDED);
  const its = await build(guided);
  const body = (await its.inject("/model")).json<Schemas["ModelInfo"]>();
  assert.deepEqual(checkModel(structuredClone(body)), { value: body });
  assert.deepEqual(body.guidance, { mode: "rgas", scale: [30, 40], candidates: 4, rerank_ratio: 0.5 });
  assert.equal(body.guided_temperature, 1);
});

test("the page has a strict policy, and every file it names exists", async () => {
  const page = await app.inject("/");
  assert.equal(page.statusCode, 200);
  assert.match(page.headers["content-type"] as string, /^text\/html/);
  const policy = page.headers["content-security-policy"] as string;
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  assert.equal(page.headers["x-content-type-options"], "nosniff");
  assert.doesNotMatch(page.body, /https?:|\sstyle=|\son\w+=|<script>|<style/);

  const named = Array.from(page.body.matchAll(/(?:href|src)="([^"#]+)"/g), ([, address]) => `/${address}`);
  assert.ok(named.includes("/main.js") && named.includes("/fonts/serif.woff2"));
  for (const address of new Set(named)) assert.equal((await app.inject(address)).statusCode, 200, address);
  const script = await app.inject("/main.js");
  assert.match(script.headers["content-type"] as string, /^(text|application)\/javascript/);
});

test("an unchanged file gets 304, and an unknown file 404", async () => {
  const { headers } = await app.inject("/main.js");
  const again = await app.inject({ url: "/main.js", headers: { "if-none-match": headers.etag as string } });
  assert.equal(again.statusCode, 304);
  assert.equal(again.body, "");
  for (const address of ["/package.json", "/../package.json", "/%2e%2e/package.json"])
    assert.equal((await app.inject(address)).statusCode, 404, address);
});
