/** The client against a real server. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DidiClient, DidiError, type GenerateRequest, type StreamEvent } from "../../src/client/index.ts";
import { listen, serve } from "../server/support.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { type Cut, countingFetch, cuttingProxy } from "./support.ts";

const { engine, origin } = await serve();

const request = { prompt: "Once upon a time", length: 40, steps: 9, seed: 12, n: 2 };
/** A request that takes one or two seconds. */
const LONG: GenerateRequest = { prompt: "", length: 200, steps: 256, seed: 1 };
const quick = { retry: { firstMs: 2, longestMs: 2 } };

async function collect(events: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const all: StreamEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** Return the steps of a stream in the form of a trace. */
const traceOf = (events: StreamEvent[]) =>
  events.flatMap((event) => {
    if (event.type !== "step") return [];
    const { type: _, id: __, ...step } = event;
    return [step];
  });

async function idle(): Promise<void> {
  for (let i = 0; i < 500 && engine.activeRows > 0; i++) await sleep(10);
  assert.equal(engine.activeRows, 0);
}

test("generate returns the answer of POST /generate", async () => {
  const response = await post(`${origin}/generate`, request);
  const posted = (await response.json()) as { samples: unknown; receipt: unknown };
  // A base URL may end in a slash.
  const answer = await new DidiClient(`${origin}/`).generate(request);
  assert.deepEqual(answer.samples, posted.samples);
  assert.deepEqual(answer.receipt, posted.receipt);
});

test("stream yields accepted, the steps of the trace, and done", async () => {
  const client = new DidiClient(origin);
  const { trace, samples } = await client.generate({ ...request, trace: true });
  const events = await collect(client.stream(request));
  assert.deepEqual(
    events.map(({ type }) => type),
    ["accepted", ...new Array(18).fill("step"), "done"],
  );
  assert.deepEqual(traceOf(events), trace);
  const done = events.at(-1)!;
  assert.deepEqual(done.type === "done" && done.samples, samples);
});

test("a connection that is cut several times, at any place, yields every event exactly once", async () => {
  const whole = await cuttingProxy(origin, []);
  const expected = await collect(new DidiClient(whole.origin).stream(request));
  const length = whole.bytes();
  await whole.close();
  // Before the answer, in its headers, and at places in the stream that lie in events, between them and in
  // characters.
  const places = [0, 60, ...Array.from({ length: 12 }, (_, i) => Math.floor(((i + 0.5) / 12) * length))];
  let resumed = 0;
  for (const [i, bytes] of places.entries()) {
    const how = i % 2 ? "end" : "reset";
    // The second connection is cut later or earlier than the first, whichever events it has.
    const cuts: Cut[] = [
      { bytes, how },
      { bytes: Math.floor(length / 3), how: "reset" },
    ];
    const proxy = await cuttingProxy(origin, cuts);
    const { fetch, calls } = countingFetch();
    const events = await collect(new DidiClient(proxy.origin, { ...quick, fetch }).stream(request));
    assert.deepEqual(
      events.map(({ type }) => type),
      expected.map(({ type }) => type),
      `cut after ${bytes} of ${length} bytes`,
    );
    assert.deepEqual(traceOf(events), traceOf(expected), `cut after ${bytes} of ${length} bytes`);
    assert.ok(calls() >= 2, `cut after ${bytes} of ${length} bytes: one connection was enough`);
    if (events.at(-1)!.id !== events[0]!.id) resumed++;
    await proxy.close();
  }
  assert.ok(resumed > 8, `only ${resumed} streams were resumed`);
});

test("a seed that the server drew is kept when a stream is resumed", async () => {
  // One sample: the server has a place left for the new connection before it sees that the old one is gone.
  const { seed: _, ...unseeded } = { ...request, n: 1 };
  const proxy = await cuttingProxy(origin, [{ bytes: 2000, how: "reset" }]);
  const { fetch, calls } = countingFetch();
  const events = await collect(new DidiClient(proxy.origin, { ...quick, fetch }).stream(unseeded));
  const [accepted, done] = [events[0]!, events.at(-1)!];
  assert.ok(accepted.type === "accepted" && done.type === "done");
  assert.equal(calls(), 2);
  assert.equal(accepted.seed, done.seed);
  assert.deepEqual(
    traceOf(events),
    (await new DidiClient(origin).generate({ ...unseeded, seed: done.seed, trace: true })).trace,
  );
  await proxy.close();
});

test("a silent connection counts as broken", async () => {
  const proxy = await cuttingProxy(origin, [{ bytes: 4000, how: "silence" }]);
  const { fetch, calls } = countingFetch();
  const client = new DidiClient(proxy.origin, { ...quick, fetch, silenceMs: 2000 });
  const events = await collect(client.stream(request));
  assert.equal(calls(), 2);
  assert.equal(traceOf(events).length, 18);
  await proxy.close();
});

test("a broken stream with a deadline is not started again", async () => {
  const proxy = await cuttingProxy(origin, [{ bytes: 4000, how: "reset" }]);
  const { fetch, calls } = countingFetch();
  const client = new DidiClient(proxy.origin, { ...quick, fetch });
  const seen: StreamEvent[] = [];
  await assert.rejects(
    async () => {
      for await (const event of client.stream({ ...request, deadline_ms: 60_000 })) seen.push(event);
    },
    (error) => error instanceof DidiError && error.status === undefined && /broke/.test(error.message),
  );
  assert.ok(seen.length > 1);
  assert.equal(calls(), 1);
  await proxy.close();
});

test("a full queue is waited for as long as the server says", async () => {
  const small = await startEngine({ maxActive: 2, maxQueue: 0 }, TINY_GUIDED);
  const { origin } = await listen(small);
  const { fetch, answers } = countingFetch();
  const client = new DidiClient(origin, { ...quick, fetch });
  const blockers = [1, 2].map((seed) =>
    new DidiClient(origin).stream({ prompt: "", length: 100, steps: 1024, seed }),
  );
  for (const blocker of blockers) await blocker.next();
  const answer = client.generate(request);
  while (answers.length === 0) await sleep(5);
  for (const blocker of blockers) await blocker.return();
  assert.equal((await answer).samples.length, 2);
  const [refused, taken] = answers;
  assert.deepEqual(
    answers.map(({ response }) => response.status),
    [429, 200],
  );
  const retryAfter = Number(refused!.response.headers.get("retry-after"));
  assert.ok(retryAfter >= 1);
  assert.ok(taken!.at - refused!.at >= retryAfter * 1000 - 5);
});

test("an aborted signal ends a call at any stage with its reason, and frees the rows", async () => {
  const client = new DidiClient(origin, { retry: { firstMs: 60_000 } });
  const reason = new Error("enough");
  const rejects = (call: Promise<unknown>) => assert.rejects(call, (error) => error === reason);

  const before = AbortSignal.abort(reason);
  await rejects(client.generate(LONG, { signal: before }));
  await rejects(collect(client.stream(LONG, { signal: before })));

  const waiting = new AbortController();
  const answer = client.generate(LONG, { signal: waiting.signal });
  while (engine.activeRows === 0) await sleep(5);
  waiting.abort(reason);
  await rejects(answer);
  await idle();

  const streaming = new AbortController();
  await rejects(
    (async () => {
      for await (const event of client.stream(LONG, { signal: streaming.signal }))
        if (event.type === "step") streaming.abort(reason);
    })(),
  );
  await idle();

  const nobody = new DidiClient("http://127.0.0.1:1", { retry: { firstMs: 60_000, longestMs: 60_000 } });
  const retrying = new AbortController();
  setTimeout(() => retrying.abort(reason), 100);
  const started = performance.now();
  await rejects(collect(nobody.stream(LONG, { signal: retrying.signal })));
  assert.ok(performance.now() - started < 5000);
});

test("leaving the loop cancels the request", async () => {
  for await (const event of new DidiClient(origin).stream(LONG)) if (event.type === "step") break;
  await idle();
});

test("a refused request is a DidiError with status, problem and request id, and is not retried", async () => {
  const { fetch, answers } = countingFetch();
  const client = new DidiClient(origin, { fetch });
  for (const call of [
    () => client.generate({ prompt: "x", steps: 0 }),
    () => collect(client.stream({ prompt: "x", steps: 0 })),
  ]) {
    answers.length = 0;
    await assert.rejects(call, (error) => {
      assert.ok(error instanceof DidiError);
      assert.equal(error.status, 400);
      assert.equal(error.problem?.errors?.[0]?.path, "/steps");
      assert.match(error.message, /The request is not valid \(400\): \/steps/);
      assert.ok(error.requestId);
      assert.equal(error.requestId, answers[0]!.response.headers.get("x-request-id"));
      assert.equal(error.retryable, false);
      return true;
    });
    assert.equal(answers.length, 1);
  }
});

test("a server that shuts down sends 503 in the stream: the error after the last retry", async () => {
  const its = await startEngine();
  const server = await listen(its);
  const { fetch, calls } = countingFetch();
  const client = new DidiClient(server.origin, { fetch, retry: { retries: 1, firstMs: 1 } });
  await assert.rejects(
    async () => {
      for await (const event of client.stream(LONG)) if (event.type === "step") its.abort();
    },
    (error) =>
      error instanceof DidiError &&
      error.status === 503 &&
      error.retryAfterMs === 1000 &&
      /shutting down/.test(error.message) &&
      error.requestId !== undefined,
  );
  assert.equal(calls(), 2);
});
