/** What the dispatcher reports of its work, and how it goes on when a worker, a row or a listener fails. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { SampleGroup } from "../../../src/engine/sample-group.ts";
import type { BatchReport } from "../../../src/engine/scheduling/dispatcher.ts";
import { NonFiniteError } from "../../../src/errors.ts";
import { BATCH_MS, dispatcherOf, finished, GRAPH_MS, groupOf, LENGTH } from "./clockwork.ts";

test("a batch is reported with its sizes, times and groups, which have their share of the work", async () => {
  const { pool, dispatcher } = dispatcherOf(2);
  const groups = [groupOf(1, 4), groupOf(2, 4, undefined, 2), groupOf(3, 8)];
  const reports: BatchReport[] = [];
  dispatcher.on("batch", (report) => reports.push(report));
  const done = finished(dispatcher, 3);
  for (const one of groups) dispatcher.add(one);
  await done;
  for (const [i, report] of reports.entries()) {
    assert.equal(report.graph, "denoise");
    assert.equal(report.rows, pool.batches[i]);
    assert.equal(report.paddedTokens, report.rows * LENGTH);
    assert.equal(report.maxTokens, 2 * LENGTH);
    assert.equal(report.milliseconds, GRAPH_MS);
    assert.deepEqual([report.sentAt, report.answeredAt], [i * BATCH_MS, (i + 1) * BATCH_MS]);
  }
  assert.equal(
    reports.reduce((sum, { draws }) => sum + draws, 0),
    4 * (LENGTH - 1),
  );
  for (const group of groups) {
    const own = reports.filter((report) => report.groups.has(group));
    assert.equal(group.computeMs, own.length * GRAPH_MS);
    assert.equal(group.firstPassAt, own[0]!.sentAt);
    assert.equal(group.records.length, group.samples.length * (group === groups[2] ? 8 : 4));
  }
  // A pass of one canvas costs its padded tokens; the second group has two canvases.
  const passes = groups.map(({ samples }) => samples.reduce((sum, one) => sum + one.passes.student, 0));
  assert.deepEqual(
    groups.map(({ tokenPasses }) => tokenPasses),
    passes.map((count) => count * LENGTH),
  );
});

test("a batch that fails is no work of its groups", async () => {
  const { pool, dispatcher } = dispatcherOf(2);
  const groups = [groupOf(1, 4), groupOf(2, 4)];
  pool.failsFor = () => pool.batches.length === 2;
  const done = finished(dispatcher, 2);
  for (const one of groups) dispatcher.add(one);
  await done;
  for (const { samples, tokenPasses } of groups)
    assert.equal(tokenPasses, samples[0]!.passes.student * LENGTH);
  // A batch of several rows has two tries before they run in smaller ones, a single row as many as the pool's.
  assert.deepEqual(
    pool.attempts,
    pool.batches.map((rows) => (rows > 1 ? 2 : undefined)),
  );
  assert.ok(pool.batches.includes(1) && pool.batches.includes(2));
});

test("a request with numbers that are not finite fails once, and the others go on", async () => {
  const { pool, dispatcher } = dispatcherOf(4);
  const groups = [groupOf(5, 4, undefined, 2), groupOf(6, 4), groupOf(7, 4)];
  pool.alter = ({ logprob }, { draws, picks, tokens, padded }) => {
    for (const [i, pick] of draws.entries())
      if (tokens[picks[2 * pick]! * padded] === 5) logprob[i] = Number.NaN;
  };
  const failed: [SampleGroup, Error][] = [];
  const done = new Promise<void>((resolve) => {
    let left = 2;
    dispatcher.on("done", (one) => {
      one.ended = true;
      if (--left === 0) resolve();
    });
    dispatcher.on("failed", (group, error) => {
      group.ended = true;
      failed.push([group, error]);
    });
  });
  for (const one of groups) dispatcher.add(one);
  await done;
  assert.equal(failed.length, 1);
  assert.equal(failed[0]![0], groups[0]);
  assert.ok(failed[0]![1] instanceof NonFiniteError);
});

test("a request whose steps cannot be announced fails, and the others go on", async () => {
  const { dispatcher } = dispatcherOf(4);
  const groups = [groupOf(1, 4), groupOf(2, 4)];
  groups[0]!.announce = () => {
    throw new Error("a step that cannot be rendered");
  };
  const failed = once(dispatcher, "failed");
  const done = once(dispatcher, "done");
  for (const one of groups) dispatcher.add(one);
  const [group, error] = (await failed) as [SampleGroup, Error];
  group.ended = true;
  assert.equal(group, groups[0]);
  assert.match(error.message, /rendered/);
  assert.equal(((await done) as [SampleGroup])[0], groups[1]);
});

test("rows wait while no worker is free, and a free one starts them", async () => {
  const { pool, dispatcher } = dispatcherOf(4);
  pool.free = 0;
  const group = groupOf(1, 2);
  const done = finished(dispatcher, 1);
  dispatcher.add(group);
  for (let i = 0; i < 5; i++) await nextTurn();
  assert.deepEqual([pool.batches.length, dispatcher.admission.active.length], [0, 1]);
  pool.free = 1;
  pool.emit("free");
  await done;
});

test("a removed request leaves its place to one that waits, whose age is told until it runs", async () => {
  const { pool, dispatcher } = dispatcherOf(4, 1);
  pool.free = 0;
  assert.equal(dispatcher.oldestAcceptedAt, undefined);
  const [first, second] = [groupOf(1, 2), groupOf(2, 2)];
  dispatcher.add(first);
  dispatcher.add(second);
  assert.equal(dispatcher.oldestAcceptedAt, first.acceptedAt);
  assert.deepEqual(dispatcher.all(), [first, second]);
  await nextTurn();
  assert.deepEqual(
    dispatcher.admission.waiting.map(({ group }) => group),
    [second],
  );
  first.ended = true;
  dispatcher.remove(first);
  await nextTurn();
  assert.deepEqual(dispatcher.all(), [second]);
  assert.deepEqual(
    dispatcher.admission.active.map(({ group }) => group),
    [second],
  );
  assert.equal(dispatcher.oldestAcceptedAt, undefined);
  const done = finished(dispatcher, 1);
  pool.free = 1;
  pool.emit("free");
  await done;
});

test("the backlog and a forecast count waiting and active rows, shared by the workers", async () => {
  for (const workers of [1, 2]) {
    const { pool, dispatcher } = dispatcherOf(1, 1, workers);
    assert.equal(dispatcher.backlogMs(), 0);
    dispatcher.add(groupOf(1, 4));
    await once(dispatcher, "done");
    pool.free = 0;
    for (const seed of [2, 3, 4]) dispatcher.add(groupOf(seed, 4));
    await nextTurn();
    const row = 4 * BATCH_MS;
    const forecast = dispatcher.forecastMs({ steps: 10, guidance: undefined }, 2, LENGTH);
    assert.equal(dispatcher.backlogMs(), (3 * row) / workers);
    // Two rows go first, the active one takes turns with its 10 steps, and it has two canvases of its own.
    assert.equal(forecast, (2 * row) / workers + 2 * 10 * BATCH_MS + (10 * BATCH_MS) / workers);
    for (const group of dispatcher.all()) dispatcher.remove(group);
  }
});

test("a row counts the batches without it, and a newcomer starts near the row with the least service", async () => {
  const { pool, dispatcher } = dispatcherOf(1);
  for (const seed of [1, 2, 3]) dispatcher.add(groupOf(seed, 31));
  const passedOver = () => dispatcher.admission.active.map((row) => row.passedOver);
  await once(dispatcher, "batch");
  // The first batch has ended and the second runs.
  assert.deepEqual(passedOver(), [1, 0, 2]);
  while (pool.batches.length < 36) await once(dispatcher, "batch");
  const least = Math.min(...dispatcher.admission.active.map(({ attained }) => attained));
  assert.ok(least > 0, `${least}`);
  const newcomer = groupOf(4, 31);
  dispatcher.add(newcomer);
  await once(dispatcher, "batch");
  const row = dispatcher.admission.active.find(({ group }) => group === newcomer)!;
  assert.ok(row.attained >= least - 8 * LENGTH, `${row.attained}`);
  assert.ok(row.attained <= least - 5 * LENGTH, `${row.attained}`);
  for (const group of dispatcher.all()) dispatcher.remove(group);
});

test("steps that need no pass are taken, however many they are, and batches are bounded by default", async () => {
  const { dispatcher } = dispatcherOf("auto");
  assert.equal(dispatcher.bounds.maxTokens, 512);
  // Of 16 times 1,024 steps, only those that reveal something need a pass.
  const group = groupOf(1, 1024, undefined, 16);
  const done = finished(dispatcher, 1);
  dispatcher.add(group);
  await done;
  assert.equal(group.records.length, 16 * 1024);
});
