/** Access to every route of the contract, with and without a key. */

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";
import OpenAI from "openai";
import { DidiClient, DidiError } from "../../../src/client/index.ts";
import { StartupError } from "../../../src/errors.ts";
import { createKey, KeyRing } from "../../../src/server/access/keys.ts";
import { CONTRACT, type Schemas, validator } from "../../../src/server/openapi.ts";
import { TINY_GUIDED } from "../../support/engine.ts";
import { post } from "../../support/http.ts";
import { until } from "../../support/until.ts";
import { listen, serve } from "../support.ts";
import { TestKeys } from "./support.ts";

const keys = await TestKeys.create({ alice: {}, bob: {} });
const { engine, app, origin } = await serve({}, TINY_GUIDED, { access: { keys: keys.ring } });

/** Routes without a key: health, and the pages in which users enter the key. */
const OPEN = ["/", "/docs", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"];

/** Each operation of the contract with a path that exists, and the shape of its errors. */
const routes = () =>
  Object.entries<object>(CONTRACT.paths).flatMap(([path, item]) =>
    Object.keys(item)
      .filter((method) => method !== "parameters")
      .map((method) => ({
        method: method.toUpperCase() as "GET" | "POST",
        path,
        url: path.replace("{model}", engine.model.manifest.name),
        check: validator(
          path.startsWith("/v1") ? "OpenAIError" : path.startsWith("/v2") ? "InferenceError" : "Problem",
        ),
      })),
  );

test("every route but health and the pages answers 401 without a key, in its own shape", async () => {
  const open: string[] = [];
  for (const { method, path, url, check } of routes()) {
    const response = await app.inject({ method, url });
    if (response.statusCode !== 401) {
      assert.equal(response.statusCode, 200, path);
      open.push(path);
      continue;
    }
    assert.equal(response.headers["www-authenticate"], 'Bearer realm="didi-serve"', path);
    assert.ok("value" in check(response.json()), path);
    assert.match(response.body, /Authorization: Bearer/);
  }
  assert.deepEqual(open.toSorted(), OPEN);
});

test("the contract tells for each route whether it requires a key, and the answers without one", async () => {
  for (const [path, item] of Object.entries<Record<string, { security?: object[]; responses: object }>>(
    CONTRACT.paths,
  ))
    for (const [method, operation] of Object.entries(item)) {
      if (method === "parameters") continue;
      assert.equal(operation.security?.length === 0, OPEN.includes(path), path);
      assert.equal("401" in operation.responses, !OPEN.includes(path), path);
    }
});

test("without a key, unknown paths, other methods and other files give away nothing", async () => {
  for (const url of ["/nothing", "/admin", "/v1/nothing", "/v2/nothing"])
    assert.equal((await app.inject(url)).statusCode, 401, url);
  assert.equal((await app.inject({ method: "DELETE", url: "/generate" })).statusCode, 401);
  // An upgrade request is checked as well.
  const headers = { connection: "upgrade", upgrade: "websocket" };
  assert.equal((await app.inject({ url: "/model", headers })).statusCode, 401);
});

test("every route accepts a key as bearer token and as X-API-Key", async () => {
  for (const headers of [
    { authorization: `Bearer ${keys.keys.alice}` },
    { authorization: `bearer  ${keys.keys.bob}` },
    { "x-api-key": keys.keys.alice! },
    { "x-api-key": keys.keys.alice!, authorization: "Basic c29tZTpvbmU=" },
  ])
    for (const { method, path, url } of routes()) {
      const { statusCode } = await app.inject({ method, url, headers });
      assert.notEqual(statusCode, 401, path);
    }
});

const WRONG: [name: string, headers: () => Record<string, string>][] = [
  ["no key at all", () => ({ authorization: "Bearer none" })],
  [
    "another scheme",
    () => ({ authorization: `Basic ${Buffer.from(`:${keys.keys.alice}`).toString("base64")}` }),
  ],
  ["an empty token", () => ({ authorization: "Bearer " })],
  ["another secret", () => ({ authorization: `Bearer ${createKey("alice", {}).key}` })],
  ["the secret of another", () => ({ authorization: `Bearer ${keys.keys.bob!.replace("bob", "alice")}` })],
  ["an unknown id", () => ({ authorization: `Bearer ${createKey("carol", {}).key}` })],
  ["a key that is cut short", () => ({ "x-api-key": keys.keys.alice!.slice(0, -1) })],
  ["a key with something after it", () => ({ "x-api-key": `${keys.keys.alice}A` })],
  ["an empty X-API-Key", () => ({ "x-api-key": "" })],
  [
    "the bearer of an object's property",
    () => ({ authorization: `Bearer didi_constructor_${"A".repeat(43)}` }),
  ],
];

for (const [name, headers] of WRONG)
  test(`${name} is refused, and the key is not repeated`, async () => {
    const response = await app.inject({ url: "/model", headers: headers() });
    assert.equal(response.statusCode, 401);
    assert.match(response.headers["www-authenticate"] as string, /error="invalid_token"/);
    const body = response.json<Schemas["Problem"]>();
    assert.equal(body.type, "urn:didi-serve:problem:unauthorized");
    assert.doesNotMatch(response.body, /didi_/);
  });

test("a key in a URL is refused, valid or not, even with a valid key in the headers", async () => {
  const headers = { authorization: `Bearer ${keys.keys.alice}` };
  for (const query of [
    `api_key=${keys.keys.alice}`,
    "key=x",
    "access_token=x",
    `q=${keys.keys.alice}`,
    `q=a&q=${keys.keys.alice}`,
  ])
    for (const url of [`/model?${query}`, `/?${query}`, `/generate/stream?${query}`]) {
      const response = await app.inject({ url, headers });
      assert.equal(response.statusCode, 400, url);
      assert.match(response.body, /must not hold a key.*Revoke the key/);
      assert.ok(!response.body.includes(keys.keys.alice!));
    }
  assert.equal((await app.inject({ url: "/model?verbose=1", headers })).statusCode, 200);
});

test("this client and OpenAI's client send a key, and report a wrong one clearly", async () => {
  const request = { prompt: "a", length: 4, steps: 1, seed: 1 };
  const answer = await new DidiClient(origin, { apiKey: keys.keys.alice! }).generate(request);
  assert.equal(answer.samples.length, 1);
  const events = [];
  for await (const event of new DidiClient(origin, { apiKey: keys.keys.alice! }).stream(request))
    events.push(event.type);
  assert.deepEqual(events, ["accepted", "step", "done"]);
  await assert.rejects(
    new DidiClient(origin).generate(request),
    (error) => error instanceof DidiError && error.status === 401 && !error.retryable,
  );
  const openai = (apiKey: string) => new OpenAI({ baseURL: `${origin}/v1`, apiKey, maxRetries: 0 });
  assert.equal((await openai(keys.keys.bob!).models.list()).data.length, 1);
  await assert.rejects(
    openai("sk-none").models.list(),
    (error) => error instanceof OpenAI.AuthenticationError && error.code === "unauthorized",
  );
});

test("a revoked key is refused at once, and its running requests end", async () => {
  const own = await TestKeys.create({ alice: {}, bob: {} });
  const { app: its, origin: at } = await listen(engine, { access: { keys: own.ring } });
  const long = (key: string) =>
    post(`${at}/generate`, { prompt: "a", length: 20, steps: 1024, n: 16 }, { "x-api-key": key });
  const [gone, stays] = [long(own.keys.alice!), long(own.keys.bob!)];
  gone.catch(() => {});
  await until("32 rows are active", () => engine.activeRows === 32);
  await own.remove("alice");
  await assert.rejects(gone);
  assert.equal((await stays).status, 200);
  assert.equal(
    (await its.inject({ url: "/model", headers: { "x-api-key": own.keys.alice! } })).statusCode,
    401,
  );
  assert.equal(
    (await its.inject({ url: "/model", headers: { "x-api-key": own.keys.bob! } })).statusCode,
    200,
  );
  await its.close();
});

test("a server without keys requires none, and ignores those that clients send", async () => {
  const { app: free } = await listen(engine);
  assert.equal((await free.inject("/model")).statusCode, 200);
  const headers = { authorization: "Bearer none" };
  assert.equal((await free.inject({ url: "/v1/models", headers })).statusCode, 200);
  await free.close();
});

test("the file holds a salted hash and nothing that grants access", async () => {
  const text = await readFile(keys.path, "utf8");
  const [first, second] = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const secret = keys.keys.alice!.slice(-43);
  assert.ok(!text.includes(secret));
  assert.notEqual(first.salt, second.salt);
  const hash = createHmac("sha256", Buffer.from(first.salt, "base64url")).update(secret).digest("base64url");
  assert.equal(first.hash, hash);
  // 256 random bits.
  assert.equal(Buffer.from(secret, "base64url").length, 32);
});

test("the error of an invalid file names the line but not its content, and the keys stay", async () => {
  const own = await TestKeys.create({ alice: {} });
  const good = await readFile(own.path, "utf8");
  const cases: [text: string, says: RegExp][] = [
    [`${good}${own.keys.alice}\n`, /keys\.jsonl:2 is not JSON/],
    [`# a comment\n\n${good}${good}`, /keys\.jsonl:4: a second key alice/],
    [good.replace('"hash"', '"hsah"'), /keys\.jsonl:1 is not a key: \/ must have required property 'hash'/],
    [good.replace("}", ',"limits":{"requests_per_minute":0}}'), /limits\/requests_per_minute must be >= 1/],
  ];
  for (const [text, says] of cases) {
    await writeFile(own.path, text);
    await assert.rejects(own.ring.reload(), (error) => {
      assert.ok(error instanceof StartupError);
      assert.match(error.message, says);
      assert.ok(!error.message.includes(own.keys.alice!));
      return true;
    });
    assert.equal(own.ring.find(own.keys.alice!)?.id, "alice");
  }
  await assert.rejects(KeyRing.open("/nowhere/keys.jsonl"), /cannot read the API keys of .*ENOENT/);
});

test("a reload changes the limits of a key; a new key under the same name replaces it", async () => {
  const own = await TestKeys.create({ alice: {} });
  const key = own.ring.find(own.keys.alice!)!;
  const record = JSON.parse(await readFile(own.path, "utf8"));
  await writeFile(own.path, JSON.stringify({ ...record, limits: { requests_per_minute: 7 } }));
  assert.deepEqual(await own.ring.reload(), { added: 0, revoked: 0 });
  assert.equal(own.ring.find(own.keys.alice!), key);
  assert.deepEqual(key.limits, { requests_per_minute: 7 });
  await writeFile(own.path, JSON.stringify(createKey("alice", {}).record));
  assert.deepEqual(await own.ring.reload(), { added: 1, revoked: 1 });
  assert.ok(key.revoked.aborted);
  assert.equal(own.ring.find(own.keys.alice!), undefined);
});
