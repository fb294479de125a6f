/** Origins of pages, and host names that resolve to this machine. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { FastifyInstance } from "fastify";
import { isLocalHost, isLoopback } from "../../../src/server/access/origins.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";
import { build } from "../support.ts";
import { TestKeys } from "./support.ts";

const engine = await startEngine({}, TINY_GUIDED);

const preflight = (origin: string) => ({
  method: "OPTIONS" as const,
  url: "/generate",
  headers: {
    origin,
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type",
  },
});

test("by default only the server's own pages may read an answer", async () => {
  const app = await build(engine, { access: {} });
  const { headers } = await app.inject({ url: "/model", headers: { origin: "https://app.example" } });
  assert.equal(headers["access-control-allow-origin"], undefined);
  const asked = await app.inject(preflight("https://app.example"));
  assert.equal(asked.statusCode, 403);
  assert.match(asked.json().detail, /--allow-origin https:\/\/app\.example$/);
  assert.equal(asked.headers["access-control-allow-origin"], undefined);
});

test("allowed pages may read answers, even before they have a key, and others may not", async () => {
  const { ring, keys } = await TestKeys.create({ alice: {} });
  const app = await build(engine, {
    access: { keys: ring, allowedOrigins: ["https://app.example", "http://localhost:3000"] },
  });
  const asked = await app.inject(preflight("https://app.example"));
  assert.equal(asked.statusCode, 204);
  assert.equal(asked.headers["access-control-allow-origin"], "https://app.example");
  assert.match(asked.headers["access-control-allow-methods"] as string, /POST/);
  assert.equal(asked.headers["access-control-allow-headers"], "content-type");
  assert.equal(asked.headers["access-control-allow-credentials"], undefined);
  const key = { "x-api-key": keys.alice! };
  for (const [origin, expected] of [
    ["https://app.example", "https://app.example"],
    ["http://localhost:3000", "http://localhost:3000"],
    ["https://evil.example", undefined],
    ["https://app.example.evil.example", undefined],
    ["null", undefined],
  ] as const) {
    const answer = await app.inject({ url: "/model", headers: { origin, ...key } });
    assert.equal(answer.headers["access-control-allow-origin"], expected, origin);
    assert.match(answer.headers.vary as string, /Origin/i);
  }
  // A page must be able to read an error.
  const refused = await app.inject({ url: "/model", headers: { origin: "https://app.example" } });
  assert.equal(refused.statusCode, 401);
  assert.equal(refused.headers["access-control-allow-origin"], "https://app.example");
  assert.match(refused.headers["access-control-expose-headers"] as string, /retry-after.*x-request-id/);
});

test("* allows every page", async () => {
  const app = await build(engine, { access: { allowedOrigins: ["*"] } });
  const { headers } = await app.inject({ url: "/model", headers: { origin: "https://any.example" } });
  assert.equal(headers["access-control-allow-origin"], "*");
});

test("a request that a page can send without a preflight is refused", async () => {
  const app = await build(engine, { access: {} });
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]) {
    const headers = { "content-type": type, origin: "https://evil.example" };
    const payload = JSON.stringify({ prompt: "a" });
    const answer = await app.inject({ method: "POST", url: "/generate", headers, payload });
    assert.equal(answer.statusCode, 415, type);
  }
});

/** Headers of a GET that generates, and the status of its answer, with one origin allowed and with none. */
const PAGES: [headers: Record<string, string>, allowed: number, none: number][] = [
  [{}, 200, 200],
  [{ "sec-fetch-site": "none" }, 200, 200],
  [{ "sec-fetch-site": "same-origin" }, 200, 200],
  [{ origin: "http://localhost:80", host: "localhost:80", "sec-fetch-site": "same-origin" }, 200, 200],
  [{ origin: "https://app.example", "sec-fetch-site": "cross-site" }, 200, 403],
  [{ origin: "https://evil.example" }, 403, 403],
  [{ origin: "null" }, 403, 403],
  // An image or a link.
  [{ "sec-fetch-site": "cross-site" }, 403, 403],
  [{ "sec-fetch-site": "same-site" }, 403, 403],
];

test("a page of another origin cannot generate with a GET, unless it is allowed", async () => {
  const request = encodeURIComponent(JSON.stringify({ prompt: "a", length: 2, steps: 1 }));
  for (const [i, allowedOrigins] of [["https://app.example"], []].entries()) {
    const app = await build(engine, { access: { allowedOrigins } });
    for (const [headers, ...expected] of PAGES) {
      const { statusCode } = await app.inject({ url: `/generate?request=${request}`, headers });
      assert.equal(statusCode, expected[i], JSON.stringify([allowedOrigins, headers]));
    }
  }
});

test("a server on the loopback interface refuses rebound host names", async () => {
  const statusOf = async (app: FastifyInstance, host: string, url = "/model") =>
    (await app.inject({ url, headers: { host } })).statusCode;
  const app = await build(engine, {
    access: { loopback: true, allowedOrigins: ["https://didi.example:8443"] },
  });
  for (const host of [
    "127.0.0.1:8080",
    "localhost:8080",
    "[::1]:8080",
    "didi",
    "app.localhost",
    "didi.example:8443",
    "DIDI.example:8443",
  ])
    assert.equal(await statusOf(app, host), 200, host);
  for (const host of [
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example.",
  ]) {
    assert.equal(await statusOf(app, host), 403, host);
    assert.equal(await statusOf(app, host, "/"), 403, host);
  }
  const { ring } = await TestKeys.create({ alice: {} });
  assert.equal(
    await statusOf(await build(engine, { access: { loopback: true, keys: ring } }), "evil.example"),
    401,
  );
  assert.equal(await statusOf(await build(engine, { access: { loopback: false } }), "didi.example"), 200);
});

test("isLoopback recognises the addresses of this machine", () => {
  for (const host of ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
    assert.ok(isLoopback(host), host);
  for (const host of ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.evil.example", "localhost.evil.example", ""])
    assert.ok(!isLoopback(host), host);
  for (const host of ["a b", "[", "evil.example/"]) assert.ok(!isLocalHost(host, []), host);
});

test("an allowed page may send the client's headers; the error for another names the flag", async () => {
  const app = await build(engine, { access: { allowedOrigins: ["https://app.example"] } });
  for (const headers of [
    "authorization,content-type,x-stainless-os,x-stainless-retry-count",
    "content-type,openai-organization,traceparent",
    "x-api-key,last-event-id",
  ]) {
    const ask = (origin: string) => {
      const { headers: asked, ...request } = preflight(origin);
      return app.inject({ ...request, headers: { ...asked, "access-control-request-headers": headers } });
    };
    const allowed = await ask("https://app.example");
    assert.equal(allowed.statusCode, 204);
    assert.equal(allowed.headers["access-control-allow-headers"], headers);
    for (const origin of ["https://evil.example", "https://app.example:444", "null"]) {
      const refused = await ask(origin);
      assert.equal(refused.statusCode, 403);
      assert.ok(refused.json().detail.endsWith(`start the server with --allow-origin ${origin}`));
      assert.equal(refused.headers["access-control-allow-origin"], undefined);
    }
  }
});

test("an allowed host name, such as a container's name for its host, is accepted at any port", async () => {
  const ask = (app: FastifyInstance, host: string) => app.inject({ url: "/model", headers: { host } });
  const closed = await build(engine, { access: { loopback: true } });
  for (const host of [
    "host.docker.internal:8080",
    "host.containers.internal",
    "gateway.docker.internal:80",
  ]) {
    const refused = await ask(closed, host);
    assert.equal(refused.statusCode, 403);
    assert.ok(refused.json().detail.endsWith(`start the server with --allow-origin http://${host}`));
    const open = await build(engine, {
      access: { loopback: true, allowedOrigins: [`http://${host.split(":")[0]}`] },
    });
    assert.equal((await ask(open, host)).statusCode, 200);
    assert.equal((await ask(open, "evil.example:8080")).statusCode, 403);
  }
});
