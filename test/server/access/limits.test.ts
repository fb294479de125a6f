/** The limits of a key, and the answers above them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { FastifyInstance } from "fastify";
import type { GenerateRequest } from "../../../src/engine/request.ts";
import { type LimitStore, MemoryLimitStore } from "../../../src/quota/memory.ts";
import type { KeyLimits } from "../../../src/server/access/key-file.ts";
import { type Schemas, validator } from "../../../src/server/openapi.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";
import { post } from "../../support/http.ts";
import { until } from "../../support/until.ts";
import { build, connections, listen, StreamClient } from "../support.ts";
import { TestKeys } from "./support.ts";

const engine = await startEngine({ cache: { maxBytes: 1e6, ttlMs: 1e6 } }, TINY_GUIDED);

const checkProblem = validator("Problem");

/** An application whose keys have these limits, with a fake clock. */
async function limited(limits: KeyLimits) {
  const clock = { now: 0 };
  const store = new MemoryLimitStore(() => clock.now);
  const { ring, keys } = await TestKeys.create({ alice: limits, bob: limits, free: {} });
  const { app, origin } = await listen(engine, { access: { keys: ring }, store });
  const ask = (payload: object, id = "alice", url = "/generate") =>
    app.inject({ method: "POST", url, payload, headers: { "x-api-key": keys[id]! } });
  const get = (id = "alice") => app.inject({ url: "/model", headers: { "x-api-key": keys[id]! } });
  return { app, origin, clock, store, keys, ask, get };
}

/** Assert that an answer names the reached limit and has Retry-After. */
function assertReached(
  response: Awaited<ReturnType<FastifyInstance["inject"]>>,
  limit: Schemas["Problem"]["limit"],
  seconds: number,
): void {
  assert.equal(response.statusCode, 429);
  const body = response.json<Schemas["Problem"]>();
  assert.deepEqual(checkProblem(body), { value: body });
  assert.equal(body.type, "urn:didi-serve:problem:limit-reached");
  assert.equal(body.limit, limit);
  assert.equal(body.retry_after, seconds);
  assert.equal(response.headers["retry-after"], String(seconds));
}

const small = { prompt: "a", length: 4, steps: 2, seed: 1 };

test("requests a minute are counted for each key, and reset after Retry-After", async () => {
  const { clock, get } = await limited({ requests_per_minute: 3 });
  for (const left of [2, 1, 0]) {
    const { statusCode, headers } = await get();
    assert.deepEqual(
      [statusCode, headers["ratelimit-limit"], headers["ratelimit-remaining"], headers["ratelimit-reset"]],
      [200, "3", String(left), "60"],
    );
  }
  clock.now = 20_500;
  assertReached(await get(), "requests_per_minute", 40);
  assert.equal((await get("bob")).statusCode, 200);
  clock.now = 59_001;
  assertReached(await get(), "requests_per_minute", 1);
  clock.now = 60_000;
  assert.equal((await get()).statusCode, 200);
  for (let i = 0; i < 10; i++) assert.equal((await get("free")).headers["ratelimit-limit"], undefined);
});

test("health, pages, metrics and wrong keys do not count against a key", async () => {
  const { app, keys, get } = await limited({ requests_per_minute: 1 });
  const headers = { "x-api-key": keys.alice! };
  for (const url of ["/healthz", "/readyz", "/v2/health/live", "/", "/main.js", "/metrics"])
    assert.equal((await app.inject({ url, headers })).statusCode, 200);
  for (let i = 0; i < 3; i++)
    await app.inject({ url: "/model", headers: { "x-api-key": keys.alice!.replace(/.{5}$/, "AAAAA") } });
  assert.equal((await get()).statusCode, 200);
  assertReached(await get(), "requests_per_minute", 60);
});

test("each API reports a reached limit in its own shape", async () => {
  const { app, keys, get } = await limited({ requests_per_minute: 1 });
  await get();
  const headers = { "x-api-key": keys.alice! };
  const openai = await app.inject({ url: "/v1/models", headers });
  assert.equal(openai.statusCode, 429);
  assert.ok("value" in validator("OpenAIError")(openai.json()));
  assert.deepEqual(
    [openai.json().error.type, openai.json().error.code, openai.headers["retry-after"]],
    ["rate_limit_error", "limit-reached", "60"],
  );
  const inference = await app.inject({ url: "/v2", headers });
  assert.ok("value" in validator("InferenceError")(inference.json()));
  assert.equal(inference.headers["retry-after"], "60");
});

const priceOf = (request: GenerateRequest) => engine.check(request).cost;

test("token passes are padded tokens times passes times samples", async () => {
  // 32 padded tokens, 2 steps.
  assert.equal(priceOf(small), 64);
  assert.equal(priceOf({ ...small, n: 3, steps: 1 }), 96);
  // At most as many steps are charged as positions are masked.
  assert.equal(priceOf({ ...small, steps: 1024 }), 4 * 32);
  // 2 tilted steps at 4 and 2 that draw, then score 4 candidates.
  assert.equal(priceOf({ ...small, steps: 4, guidance: { mode: "rgas" } }), 32 * (2 * 4 + 2 * (1 + 4)));
  // Each sample is scored at its end.
  assert.equal(priceOf({ ...small, steps: 1, best_of: 2 }), 2 * 32 * 2);
  // A step that masks tokens again runs though there are 4 positions.
  assert.equal(priceOf({ ...small, steps: 8, remask: { mode: "random", rate: 0.1 } }), 8 * 32);
  // 3 particles take a pass and are scored at each of 2 steps.
  const smc = { mode: "smc", particles: 3 } as const;
  assert.equal(priceOf({ ...small, guidance: smc }), 32 * 2 * 3 * (1 + 1));
  assert.equal(priceOf({ ...small, guidance: smc, best_of: 2 }), 2 * 32 * (2 * 3 * (1 + 1) + 1));

  const { clock, ask } = await limited({ token_passes_per_minute: 160 });
  // In confidence order every step reveals positions, so that every step runs.
  const unseeded = { ...small, seed: undefined, order: "confidence" };
  assert.equal((await ask(unseeded)).statusCode, 200);
  assert.equal((await ask(unseeded)).statusCode, 200);
  clock.now = 30_000;
  assertReached(await ask(unseeded), "token_passes_per_minute", 30);
  // A refused request is not charged: there is room for half of it.
  assert.equal((await ask({ ...unseeded, steps: 1 })).statusCode, 200);
  assertReached(await ask({ ...unseeded, steps: 1 }), "token_passes_per_minute", 30);
  assert.equal((await ask(unseeded, "free")).statusCode, 200);
  clock.now = 60_000;
  assert.equal((await ask(unseeded)).statusCode, 200);
});

test("re-ranked steps are charged for the most that can run, and corrected by what ran", async () => {
  const { ask, store, origin, keys } = await limited({ token_passes_per_minute: 100_000 });
  const guidance = { mode: "rgas" as const, rerank_ratio: 1, candidates: 4 };
  const request = { ...small, seed: 3, steps: 64, guidance };
  // Each of 64 steps may run, though there are 4 masked positions.
  assert.equal(priceOf(request), 32 * 64 * (1 + 4));
  const { usage } = (await ask(request)).json();
  const ran = 32 * (usage.student_passes + usage.discriminator_passes);
  assert.ok(usage.student_passes > 4 && ran < priceOf({ ...request, seed: 4 }), `${ran}`);
  const { used } = await store.take("alice", "token_passes_per_minute", 0, 60_000);
  assert.equal(used, ran);

  // A cancelled request is charged for the passes that were started.
  const stop = new AbortController();
  const long = { prompt: "", length: 60, steps: 300, guidance };
  const given = post(`${origin}/generate`, long, { "x-api-key": keys.bob! }, stop.signal);
  await new Promise<void>((resolve) => engine.once("batch", () => resolve()));
  stop.abort();
  await assert.rejects(given);
  await until("no row is active", () => engine.activeRows === 0);
  const after = await store.take("bob", "token_passes_per_minute", 0, 60_000);
  assert.ok(after.used > 0 && after.used < 100_000, `${after.used}`);
});

test("a cached answer is charged for the work of sending it", async () => {
  const { ask } = await limited({ token_passes_per_minute: 65 });
  const seeded = { ...small, seed: 99 };
  assert.equal((await ask(seeded)).json().cache, "miss");
  assert.equal((await ask(seeded)).json().cache, "hit");
  assertReached(await ask({ ...seeded, seed: 98 }), "token_passes_per_minute", 60);
});

test("a request above a whole limit gets 413; an invalid one gets 400 and is not charged", async () => {
  const { ask } = await limited({ token_passes_per_minute: 100, concurrent_requests: 1 });
  const large = await ask({ ...small, steps: 4, seed: undefined });
  assert.equal(large.statusCode, 413);
  assert.match(large.json().detail, /may cost 128 token passes.*may use 100 a minute.*fewer steps/);
  assert.equal((await ask({ ...small, steps: 0 })).statusCode, 400);
  const model = engine.model.manifest.name;
  const two = await ask({ model, prompt: ["a", "b"], max_tokens: 4, steps: 1 }, "alice", "/v1/completions");
  assert.equal(two.statusCode, 413);
  assert.match(two.json().error.message, /has 2 requests at once, and this API key may run 1/);
  assert.equal((await ask({ ...small, seed: undefined })).statusCode, 200);
});

test("concurrent requests are counted over all APIs, and given back at their end", async () => {
  const { origin, keys, ask, store } = await limited({ concurrent_requests: 2 });
  const used = async () =>
    (await store.take("alice", "concurrent_requests", 0, Number.POSITIVE_INFINITY)).used;
  const client = await StreamClient.connect(origin, { headers: { "x-api-key": keys.alice! } });
  const long = { type: "generate", prompt: "a", length: 20, steps: 1024, n: 16 };
  for (const id of ["a", "b", "c"]) client.send({ ...long, id });
  const refused = await client.end("c");
  assert.ok(refused.type === "error");
  assert.deepEqual([refused.error.status, refused.error.limit], [429, "concurrent_requests"]);
  const answer = await ask(small);
  assert.equal(answer.statusCode, 429);
  assert.equal(answer.json().limit, "concurrent_requests");
  assert.ok(Number(answer.headers["retry-after"]) >= 1);
  assert.equal((await ask(small, "bob")).statusCode, 200);
  assert.equal(await used(), 2);

  client.send({ type: "cancel", id: "a" });
  await client.end("a");
  assert.equal((await ask({ ...small, seed: undefined })).statusCode, 200);
  assert.equal(await used(), 1);
  client.socket.terminate();
  await until("the place is given back", async () => (await used()) === 0);
  // A request that the engine refuses is given back as well.
  assert.equal((await ask({ ...small, length: 100_000 })).statusCode, 400);
  assert.equal(await used(), 0);
});

test("each message of a WebSocket counts as a request", async () => {
  const { origin, keys } = await limited({ requests_per_minute: 2 });
  const client = await StreamClient.connect(origin);
  client.send({ type: "auth", key: keys.alice });
  for (const id of ["a", "b", "c"]) client.send({ type: "generate", id, ...small });
  const ends = [await client.end("a"), await client.end("b"), await client.end("c")];
  assert.deepEqual(
    ends.map(({ type }) => type),
    ["done", "done", "error"],
  );
  assert.ok(ends[2]!.type === "error" && ends[2]!.error.limit === "requests_per_minute");
  client.socket.close();
});

test("the rows of a client that disconnects while the store is queried are freed", async () => {
  const hangUp = new AbortController();
  const slow: LimitStore = {
    async take() {
      // The second query gives back, after the client has gone.
      if (!hangUp.signal.aborted) {
        hangUp.abort();
        await until("the client is gone", async () => (await connections(app)) === 0);
      }
      return { used: 1, resetMs: 60_000 };
    },
  };
  const { ring, keys } = await TestKeys.create({ alice: { concurrent_requests: 4 } });
  const { app, origin } = await listen(engine, { access: { keys: ring }, store: slow });
  let finished = 0;
  engine.on("finished", ({ outcome }) => (outcome === "cancelled" ? finished++ : 0));
  const long = { prompt: "a", length: 20, steps: 1024, n: 16 };
  await assert.rejects(post(`${origin}/generate`, long, { "x-api-key": keys.alice! }, hangUp.signal));
  await until("the request is cancelled", () => finished > 0);
  assert.equal(engine.activeRows + engine.queueLength, 0);
});

test("counters never fall below zero, and each key has its own window", async () => {
  const clock = { now: 0 };
  const store = new MemoryLimitStore(() => clock.now);
  const take = (amount: number, key = "a") => store.take(key, "token_passes_per_minute", amount, 1000);
  assert.deepEqual(await take(5), { used: 5, resetMs: 1000 });
  clock.now = 400;
  assert.deepEqual(await take(5), { used: 10, resetMs: 600 });
  assert.deepEqual(await take(1, "b"), { used: 1, resetMs: 1000 });
  clock.now = 1000;
  assert.deepEqual(await take(-5), { used: 0, resetMs: 1000 });
  // Giving back too late does not begin a window.
  clock.now = 1500;
  assert.deepEqual(await take(2), { used: 2, resetMs: 1000 });
});

test("every message of a WebSocket counts; a cancel above the limit is executed", async () => {
  const { origin, keys, clock } = await limited({ requests_per_minute: 4 });
  const client = await StreamClient.connect(origin, { headers: { "x-api-key": keys.alice! } });
  client.send({ type: "generate", id: "long", prompt: "a", length: 20, steps: 1024, n: 16 });
  await client.find((event): event is Schemas["AcceptedEvent"] => event.type === "accepted");
  for (const message of ["{", { type: "generate", id: "b", steps: 0 }]) client.send(message);
  client.send({ type: "generate", id: "c", ...small });
  const refused = await client.end("c");
  assert.equal(refused.type === "error" && refused.error.limit, "requests_per_minute");
  client.send("[");
  client.send({ type: "cancel", id: "long" });
  const ended = await client.end("long");
  assert.equal(ended.type === "error" && ended.error.type, "urn:didi-serve:problem:cancelled");
  const kinds = client.events.flatMap((event) =>
    event.type === "error" ? [event.error.type.split(":")[3]] : [],
  );
  assert.deepEqual(kinds, ["invalid-json", "invalid-request", "limit-reached", "limit-reached", "cancelled"]);
  clock.now = 60_000;
  client.send({ type: "generate", id: "d", ...small });
  assert.equal((await client.end("d")).type, "done");
  client.socket.close();
});

test("without keys there are no limits and no RateLimit headers", async () => {
  const app = await build(engine);
  assert.equal((await app.inject("/model")).headers["ratelimit-limit"], undefined);
});
