import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import { timed } from "../../loadtest/traffic/closed.ts";
import { arrivals, keptUp, openLoop } from "../../loadtest/traffic/open.ts";
import { Recorder } from "../../loadtest/traffic/recorder.ts";

const ASK = { shape: { name: "a", weight: 1, length: 1 }, seed: 1 };
const never = new AbortController().signal;

test("arrivals are Poisson: their gaps have the mean and the variance of an exponential", () => {
  const times = arrivals(100, 200, 7);
  assert.ok(Math.abs(times.length - 20_000) < 5 * Math.sqrt(20_000), `${times.length} arrivals`);
  const gaps = times.map((time, i) => time - (times[i - 1] ?? 0));
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
  assert.ok(Math.abs(mean - 10) < 0.5, `mean gap ${mean} ms`);
  assert.ok(Math.abs(Math.sqrt(variance) / mean - 1) < 0.1, "deviation and mean are equal");
  assert.ok(gaps.every((gap) => gap > 0) && times.at(-1)! < 200_000);
  assert.deepEqual(arrivals(100, 200, 7), times);
  assert.notDeepEqual(arrivals(100, 200, 8), times);
});

/** Milliseconds of the server's stall, its start, and the duration of the arrivals. */
const [STALL, FROM, WINDOW] = [600, 400, 2000];

/** A server that answers at once except during one stall. */
async function stallingServer() {
  let opened: number | undefined;
  const server = createServer((_, response) => {
    const now = performance.now();
    opened ??= now;
    const since = now - opened;
    const held = since >= FROM && since < FROM + STALL ? FROM + STALL - since : 0;
    setTimeout(() => response.end("ok"), held);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  const ask = async () => {
    await (await fetch(url)).text();
    return { tokens: 1 };
  };
  return { server, ask };
}

test("the open loop shows a stall of the server in p99, and in each request during the stall", async () => {
  const { server, ask } = await stallingServer();
  const recorder = new Recorder();
  const times = arrivals(100, WINDOW / 1000, 3);
  await openLoop(times, (intended) => timed(ASK, intended, recorder, ask), never);
  server.close();
  assert.deepEqual(recorder.errors, {});
  const latency = recorder.times.times().latency!;
  assert.equal(latency.count, times.length);
  // At least a tenth of all requests came in the first half of the stall. Only lower bounds: a slow machine
  // adds.
  assert.ok(latency.p99 >= 0.8 * STALL, `p99 ${latency.p99} ms`);
  assert.ok(latency.p90 >= 0.3 * STALL, `p90 ${latency.p90} ms`);
});

test("a closed loop of one client sees the same stall in one request only", async () => {
  const { server, ask } = await stallingServer();
  const latencies: number[] = [];
  for (const end = performance.now() + WINDOW; performance.now() < end; ) {
    const sent = performance.now();
    await ask();
    latencies.push(performance.now() - sent);
  }
  server.close();
  const held = latencies.filter((latency) => latency >= 0.5 * STALL);
  assert.ok(
    held.length <= 0.1 * latencies.length || latencies.length < 20,
    `${held.length} of ${latencies.length}`,
  );
});

test("latency of a delayed client counts from the intended time of sending", async () => {
  const recorder = new Recorder();
  const times = Array.from({ length: 100 }, (_, i) => i);
  let blocked = false;
  await openLoop(
    times,
    async (intended) => {
      recorder.times.record("send_lag", performance.now() - intended);
      await timed(ASK, intended, recorder, async () => ({ tokens: 1 }));
      if (blocked) return;
      blocked = true;
      // Block the thread, like a long garbage collection.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
    },
    never,
  );
  const { latency, send_lag } = recorder.times.times();
  assert.equal(latency!.count, 100);
  assert.ok(latency!.p50 >= 250, `p50 ${latency!.p50} ms`);
  assert.ok(send_lag!.p99 >= 250);
});

test("an aborted loop stops sending and resolves", async () => {
  const stop = new AbortController();
  let sent = 0;
  await openLoop(
    [0, 1, 3_600_000],
    async () => {
      if (++sent === 2) stop.abort();
    },
    stop.signal,
  );
  assert.equal(sent, 2);
});

test("a server kept up if it answered 0.9 of the arrivals in time and 0.99 without errors", () => {
  const run = { offered: 100, seconds: 10, answered: 100, lastAnswer: 10.5, shortest: 0.5 };
  assert.equal(keptUp(run), true);
  assert.equal(keptUp({ ...run, lastAnswer: 11.5 }), true);
  assert.equal(keptUp({ ...run, lastAnswer: 12 }), false);
  assert.equal(keptUp({ ...run, answered: 98 }), false);
});
