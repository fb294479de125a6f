/** /metrics and /docs on the admin port, and the headers of every answer. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ModelRegistry } from "../../../src/engine/models/registry.ts";
import { buildAdminApp } from "../../../src/server/app.ts";
import { createMetrics } from "../../../src/server/telemetry/metrics.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";
import { build } from "../support.ts";
import { TestKeys } from "./support.ts";

const engine = await startEngine({}, TINY_GUIDED);
const metrics = createMetrics(new ModelRegistry(engine));
const main = await build(engine, { metrics, adminElsewhere: true });
const admin = await buildAdminApp(metrics);
after(() => admin.close());

test("/metrics and /docs move to the admin port, with the contract, and nothing else does", async () => {
  for (const url of ["/metrics", "/metrics/", "/docs"]) {
    const gone = await main.inject(url);
    assert.equal(gone.statusCode, 404);
    assert.match(gone.body, /--admin-port/);
    assert.equal((await admin.inject(url)).statusCode, 200);
  }
  for (const url of ["/generate", "/model", "/healthz", "/v1/models", "/v2", "/main.js", "/generate/stream"])
    assert.notEqual((await admin.inject(url)).statusCode, 200, url);
  assert.equal((await main.inject("/openapi.yaml")).statusCode, 200);
  const home = await admin.inject("/");
  assert.equal(home.statusCode, 302);
  assert.equal(home.headers.location, "docs");
});

test("the admin port has the metrics of the server", async () => {
  const payload = { prompt: "a", length: 4, steps: 1 };
  assert.equal((await main.inject({ method: "POST", url: "/generate", payload })).statusCode, 200);
  assert.match((await admin.inject("/metrics")).body, /didi_requests_total\{outcome="done"\} [1-9]/);
});

test("with keys, the admin port requires one", async () => {
  const { ring, keys } = await TestKeys.create({ prometheus: {} });
  const guarded = await buildAdminApp(createMetrics(new ModelRegistry(engine)), { access: { keys: ring } });
  assert.equal((await guarded.inject("/metrics")).statusCode, 401);
  const headers = { authorization: `Bearer ${keys.prometheus}` };
  assert.equal((await guarded.inject({ url: "/metrics", headers })).statusCode, 200);
  await guarded.close();
});

test("every answer has headers against content sniffing and framing", async () => {
  for (const url of ["/", "/model", "/healthz", "/nothing", "/openapi.yaml"]) {
    const { headers } = await main.inject(url);
    assert.equal(headers["x-content-type-options"], "nosniff", url);
    assert.equal(headers["referrer-policy"], "no-referrer", url);
    assert.equal(headers["cross-origin-opener-policy"], "same-origin", url);
    assert.equal(headers["cross-origin-resource-policy"], "same-origin", url);
    assert.equal(headers["x-frame-options"], "DENY", url);
    assert.match(headers["content-security-policy"] as string, /frame-ancestors 'none'/, url);
    // Without TLS, HSTS would bind the host name.
    assert.equal(headers["strict-transport-security"], undefined, url);
  }
  const { headers } = await main.inject("/model");
  assert.match(headers["content-security-policy"] as string, /^default-src 'none';/);
});
