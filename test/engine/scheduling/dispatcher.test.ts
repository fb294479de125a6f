import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import type { SampleGroup } from "../../../src/engine/sample-group.ts";
import { MemoryFailure, ModelFailure } from "../../../src/errors.ts";
import { BATCH_MS, dispatcherOf, engine, finished, groupOf, LENGTH, requestOf } from "./clockwork.ts";

/** Run `count` groups in batches of `rows` canvases. */
function runAll(count: number, steps: number, rows: number) {
  const { pool, dispatcher } = dispatcherOf(rows);
  const groups = Array.from({ length: count }, (_, seed) => groupOf(seed, steps));
  const done = finished(dispatcher, count);
  for (const one of groups) dispatcher.add(one);
  return { pool, dispatcher, groups, done };
}

/** Compare the tokens of each group with those of the same request alone. */
async function assertAsAlone(groups: readonly SampleGroup[], steps: number): Promise<void> {
  for (const [seed, one] of groups.entries()) {
    const alone = await engine.submit(requestOf(seed, steps)).result;
    assert.deepEqual([...one.samples[0]!.canvas.tokens.slice(1)], alone.samples[0]!.tokens);
  }
}

test("other rows in a batch change no token", async () => {
  const { pool, groups, done } = runAll(6, 8, 2);
  await done;
  assert.ok(pool.batches.some((rows) => rows === 2));
  await assertAsAlone(groups, 8);
});

test("simultaneous requests are spread over free workers, and their tokens do not change", async () => {
  const { pool, dispatcher } = dispatcherOf(8, 64, 2);
  const groups = Array.from({ length: 8 }, (_, seed) => groupOf(seed, 6));
  const done = finished(dispatcher, 8);
  for (const one of groups) dispatcher.add(one);
  await done;
  assert.deepEqual(pool.batches.slice(0, 2), [4, 4]);
  await assertAsAlone(groups, 6);
});

test("a deadline is met beside other requests, at any time", async () => {
  // From the time on at which the duration of a batch is known.
  for (let deadline = 60; deadline <= 90; deadline += 2.5) {
    const { pool, dispatcher } = dispatcherOf(1);
    for (const [seed, at] of [[0, deadline], [7], [8]] as const) dispatcher.add(groupOf(seed, 30, at));
    const [first] = (await once(dispatcher, "done")) as [SampleGroup];
    assert.ok(first.samples[0]!.hurried);
    assert.ok(pool.time <= deadline + 1e-6, `${pool.time} ms, ${deadline}`);
    for (const other of dispatcher.all()) dispatcher.remove(other);
  }
});

test("maxActive bounds the active samples, each sample of a request counted", async () => {
  const { pool, dispatcher } = dispatcherOf(8, 3);
  const groups = [groupOf(1, 4, undefined, 8), groupOf(2, 4, undefined, 2)];
  const active: number[] = [];
  dispatcher.on("batch", () => active.push(dispatcher.admission.active.length));
  const done = finished(dispatcher, 2);
  for (const one of groups) dispatcher.add(one);
  assert.equal(dispatcher.waiting, 2);
  await done;
  assert.equal(Math.max(...active), 3);
  assert.equal(Math.max(...pool.batches), 3);
  for (const { samples } of groups) assert.ok(samples.every((sample) => sample.done));
});

test("a near deadline takes the place of the row with the most service", async () => {
  const { pool, dispatcher } = dispatcherOf(8, 2);
  const long = [groupOf(1, 40), groupOf(2, 40)];
  const active: number[] = [];
  dispatcher.on("batch", () => active.push(dispatcher.admission.active.length));
  const done = finished(dispatcher, 3);
  for (const one of long) dispatcher.add(one);
  const urgent = groupOf(3, 40, 100);
  dispatcher.add(urgent);
  const [first] = (await once(dispatcher, "done")) as [SampleGroup];
  assert.equal(first, urgent);
  assert.ok(first.samples[0]!.hurried);
  assert.ok(pool.time <= 100, `${pool.time} ms`);
  await done;
  assert.equal(Math.max(...active), 2);
  for (const { samples } of long) assert.equal(samples[0]!.hurried, false);
});

test("a step is announced after the next batch was sent", async () => {
  const { pool, dispatcher, done } = runAll(2, 4, 1);
  const free: number[] = [];
  dispatcher.on("step", () => free.push(pool.free));
  await done;
  // While one of the two rows is announced, the batch of the other one runs.
  assert.deepEqual([...new Set(free.slice(0, -1))], [0]);
});

test("an error in a listener of batch reports does not stop the dispatcher", async () => {
  const { dispatcher, done } = runAll(4, 4, 4);
  dispatcher.once("batch", () => {
    throw new Error("a metric that does not exist");
  });
  await done;
  assert.equal(dispatcher.admission.active.length, 0);
});

test("rows of a failed batch run in smaller ones, until the row at fault is alone and fails", async () => {
  const { pool, dispatcher } = dispatcherOf(8);
  const groups = Array.from({ length: 8 }, (_, seed) => groupOf(seed, 4));
  pool.failsFor = ({ tokens, rows, padded }) =>
    Array.from({ length: rows }, (_, row) => tokens[row * padded]).includes(5);
  const failed: SampleGroup[] = [];
  const done = new Promise<void>((resolve) => {
    let left = 8;
    const end = (one: SampleGroup) => {
      one.ended = true;
      if (--left === 0) resolve();
    };
    dispatcher.on("done", end);
    dispatcher.on("failed", (one, error) => {
      assert.ok(error instanceof ModelFailure);
      failed.push(one);
      end(one);
    });
  });
  for (const one of groups) dispatcher.add(one);
  await done;
  assert.deepEqual(failed, [groups[5]]);
  assert.equal(dispatcher.bounds.tooMany, undefined);
  await assertAsAlone(groups.slice(0, 5), 4);
});

test("a batch beyond the memory fails once; later ones are smaller", async () => {
  const { pool, dispatcher } = dispatcherOf(8);
  pool.failure = new MemoryFailure("as a device without memory for 5 rows");
  pool.failsFor = ({ rows }) => rows > 4;
  const groups = Array.from({ length: 8 }, (_, seed) => groupOf(seed, 4));
  const done = finished(dispatcher, 8);
  for (const one of groups) dispatcher.add(one);
  await done;
  assert.equal(pool.batches.filter((rows) => rows > 4).length, 1);
  assert.deepEqual(dispatcher.bounds.tooMany, new Map([[LENGTH, 8 * LENGTH]]));
  await assertAsAlone(groups, 4);
});

/** Return the forecast for 100 steps of one row, after groups ran in batches of two rows. */
async function forecast(count: number, restartIn: number): Promise<number> {
  const { pool, dispatcher, done } = runAll(count, 4, 2);
  pool.restartIn = restartIn;
  await done;
  return dispatcher.forecastMs({ steps: 100, guidance: undefined }, 1, LENGTH);
}

test("the forecast counts the whole time of a batch, not only that of the graph", async () => {
  for (const count of [2, 6]) {
    const each = await forecast(count, -1);
    assert.ok(Math.abs(each - (100 * BATCH_MS) / 2) < 1e-6, `${each}`);
  }
});

test("the forecast does not count the time to replace a worker", async () => {
  const quiet = await forecast(2, -1);
  const restarted = await forecast(2, 3);
  assert.ok(restarted > 0 && restarted <= quiet, `${restarted}`);
});
