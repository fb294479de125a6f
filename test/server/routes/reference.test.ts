/** GET /docs: the contract as a page, from this server only, with its own policy. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { CONTRACT } from "../../../src/server/openapi.ts";
import { TINY_GUIDED } from "../../support/engine.ts";
import { serve } from "../support.ts";

const { app } = await serve({}, TINY_GUIDED);
const page = (await app.inject("/docs")).body;

/** Addresses of the files that the page loads. */
const files = () =>
  Array.from(
    page.matchAll(/ (?:href|src)="([^"]+)"/g),
    ([, file]) => new URL(file!, "http://a/docs").pathname,
  );

test("the page runs the scripts of its own server and no inline script", async () => {
  const { headers, statusCode } = await app.inject("/docs");
  assert.equal(statusCode, 200);
  assert.match(headers["content-type"] as string, /^text\/html/);
  const policy = headers["content-security-policy"] as string;
  assert.match(policy, /^default-src 'none';script-src 'self';/);
  assert.match(policy, /connect-src 'self';.*frame-ancestors 'none'/);
  assert.doesNotMatch(policy, /https?:|\*|unsafe-eval|script-src[^;]*unsafe/);
  assert.doesNotMatch(page, /<script>|\son\w+=|https?:/i);
  // Other answers have another policy.
  const other = await app.inject("/model");
  assert.match(other.headers["content-security-policy"] as string, /^default-src 'none';base-uri/);
});

test("the files of the page are served, and browsers revalidate them with their ETags", async () => {
  assert.ok(files().length >= 5);
  for (const file of files()) {
    const { statusCode, headers } = await app.inject(file);
    assert.equal(statusCode, 200, file);
    if (headers.etag === undefined) continue;
    const again = await app.inject({ url: file, headers: { "if-none-match": headers.etag as string } });
    assert.equal(again.statusCode, 304, file);
  }
});

test("the page shows all of openapi.yaml, and sends requests to its own server", async () => {
  const document = (await app.inject("/docs/json")).json();
  assert.deepEqual(document, { ...JSON.parse(JSON.stringify(CONTRACT)), servers: [{ url: ".." }] });
});

for (const path of ["/docs/static/nothing.js", "/docs/nothing", "/docs/static/../../package.json"])
  test(`${path} gets 404 as a problem`, async () => {
    const { statusCode, headers } = await app.inject(path);
    assert.equal(statusCode, 404);
    assert.match(headers["content-type"] as string, /^application\/problem\+json/);
  });
