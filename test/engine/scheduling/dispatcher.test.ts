import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { after, before, test } from "node:test";
import type { Engine } from "../../../src/engine/engine.ts";
import { prepare } from "../../../src/engine/request.ts";
import { SampleGroup } from "../../../src/engine/sample-group.ts";
import { Dispatcher } from "../../../src/engine/scheduling/dispatcher.ts";
import { ModelFailure } from "../../../src/errors.ts";
import type { WorkerPool } from "../../../src/runtime/pool.ts";
import type { DenoiseInput } from "../../../src/runtime/protocol.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";

const LENGTH = 32;
/** Milliseconds of the made-up clock that a batch takes, the way to the process and back included. */
const BATCH_MS = 10;

let engine: Engine;
before(async () => {
  engine = await startEngine({}, TINY_GUIDED);
});
after(() => engine.pool.close());

/** Only the clock is made up, and that the graph took no time: every batch runs. */
class Clockwork extends EventEmitter {
  readonly healthy: number;
  free: number;
  restarts = 0;
  time = 0;
  /** Rows of each batch. */
  readonly batches: number[] = [];
  /** Number of the batch in which the process is replaced. */
  restartIn = -1;
  /** Fails instead of running a batch. */
  failsFor: (batch: DenoiseInput) => boolean = () => false;

  constructor(workers: number) {
    super();
    this.healthy = workers;
    this.free = workers;
  }

  now() {
    return this.time;
  }

  async run(graph: "denoise", batch: DenoiseInput) {
    assert.ok(this.free > 0, "a batch is started when a worker is free");
    this.batches.push(batch.rows);
    this.free--;
    const result = await engine.pool.run(graph, batch);
    this.time += BATCH_MS;
    if (this.batches.length === this.restartIn) {
      this.restarts++;
      this.time += 1000;
    }
    this.free++;
    if (this.failsFor(batch)) throw new ModelFailure("as a graph that cannot run");
    return { ...result, milliseconds: 0 };
  }
}

/** Each has a prompt of its own: their first passes are not the same. */
const requestOf = (seed: number, steps: number, n = 1) => ({
  ...{ prompt_tokens: [seed], length: LENGTH - 1, steps, seed, n, guidance: { mode: "none" as const } },
});

function groupOf(seed: number, steps: number, deadlineMs?: number, n = 1): SampleGroup {
  const { params } = prepare(engine.model, requestOf(seed, steps, n), () => 0);
  return new SampleGroup(params, engine.model, deadlineMs, 0);
}

/** A dispatcher of batches of `rows` canvases. */
function dispatcherOf(rows: number, maxActive = 64, workers = 1) {
  const pool = new Clockwork(workers);
  const limits = { maxBatchTokens: rows * LENGTH, maxActive };
  const { context_length } = engine.model.manifest;
  return { pool, dispatcher: new Dispatcher(pool as unknown as WorkerPool, context_length, limits, pool) };
}

/** Resolves once so many groups are done. Rejects if one fails. */
function finished(dispatcher: Dispatcher, count: number): Promise<void> {
  let left = count;
  return new Promise<void>((resolve, reject) => {
    dispatcher.on("done", (one) => {
      one.ended = true;
      if (--left === 0) resolve();
    });
    dispatcher.on("failed", (_, error) => reject(error));
  });
}

/** Runs so many groups in batches of `rows` canvases. */
function runAll(count: number, steps: number, rows: number) {
  const { pool, dispatcher } = dispatcherOf(rows);
  const groups = Array.from({ length: count }, (_, seed) => groupOf(seed, steps));
  const done = finished(dispatcher, count);
  for (const one of groups) dispatcher.add(one);
  return { pool, dispatcher, groups, done };
}

/** Holds the tokens of each to those of the same request alone. */
async function assertAsAlone(groups: readonly SampleGroup[], steps: number): Promise<void> {
  for (const [seed, one] of groups.entries()) {
    const alone = await engine.submit(requestOf(seed, steps)).result;
    assert.deepEqual([...one.samples[0]!.canvas.tokens.slice(1)], alone.samples[0]!.tokens);
  }
}

test("company changes no token", async () => {
  const { pool, groups, done } = runAll(6, 8, 2);
  await done;
  assert.ok(pool.batches.some((rows) => rows === 2));
  await assertAsAlone(groups, 8);
});

test("requests that come together are spread over free workers, and nothing else changes", async () => {
  const { pool, dispatcher } = dispatcherOf(8, 64, 2);
  const groups = Array.from({ length: 8 }, (_, seed) => groupOf(seed, 6));
  const done = finished(dispatcher, 8);
  for (const one of groups) dispatcher.add(one);
  await done;
  assert.deepEqual(pool.batches.slice(0, 2), [4, 4]);
  await assertAsAlone(groups, 6);
});

test("a deadline is met beside others, whenever it comes", async () => {
  // Not before the length of a batch is known.
  for (let deadline = 60; deadline <= 90; deadline += 2.5) {
    const { pool, dispatcher } = dispatcherOf(1);
    for (const [seed, at] of [[0, deadline], [7], [8]] as const) dispatcher.add(groupOf(seed, 30, at));
    const [first] = (await once(dispatcher, "done")) as [SampleGroup];
    assert.ok(first.samples[0]!.hurried);
    assert.ok(pool.time <= deadline + 1e-6, `${pool.time} ms, ${deadline}`);
    for (const other of dispatcher.all()) dispatcher.remove(other);
  }
});

test("maxActive bounds the samples side by side, those of one request counted one by one", async () => {
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

test("a near deadline takes the place of a row that has had more, and no further place", async () => {
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

test("a step is announced when the next batch is on its way", async () => {
  const { pool, dispatcher, done } = runAll(2, 4, 1);
  const free: number[] = [];
  dispatcher.on("step", () => free.push(pool.free));
  await done;
  // Of each of the two rows the other one has its batch, until that is over too.
  assert.deepEqual([...new Set(free.slice(0, -1))], [0]);
});

test("who fails to take the report of a batch holds nobody up", async () => {
  const { dispatcher, done } = runAll(4, 4, 4);
  dispatcher.once("batch", () => {
    throw new Error("a metric that does not exist");
  });
  await done;
  assert.equal(dispatcher.admission.active.length, 0);
});

test("rows whose batch fails share smaller ones, until the row at fault stands alone and fails", async () => {
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
  await assertAsAlone(groups.slice(0, 5), 4);
});

/** What 100 more steps of one row are forecast to take, after groups ran in batches of two rows. */
async function forecast(count: number, restartIn: number): Promise<number> {
  const { pool, dispatcher, done } = runAll(count, 4, 2);
  pool.restartIn = restartIn;
  await done;
  return dispatcher.forecastMs({ steps: 100, guidance: undefined }, 1, LENGTH);
}

test("a batch counts with all that it keeps others waiting, beyond what the graph ran", async () => {
  for (const count of [2, 6]) {
    const each = await forecast(count, -1);
    assert.ok(Math.abs(each - (100 * BATCH_MS) / 2) < 1e-6, `${each}`);
  }
});

test("the time to replace a process does not count", async () => {
  const quiet = await forecast(2, -1);
  const restarted = await forecast(2, 3);
  assert.ok(restarted > 0 && restarted <= quiet, `${restarted}`);
});
