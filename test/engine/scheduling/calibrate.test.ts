import assert from "node:assert/strict";
import { test } from "node:test";
import { calibrate } from "../../../src/engine/scheduling/calibrate.ts";
import { mostTokens } from "../../../src/engine/scheduling/scheduler.ts";
import { MemoryFailure, ModelFailure } from "../../../src/errors.ts";
import { defaultsOf } from "../../../src/model/manifest.ts";
import { openModel } from "../../../src/model/model.ts";
import type { WorkerPool } from "../../../src/runtime/pool.ts";
import type { DenoiseInput } from "../../../src/runtime/protocol.ts";
import { MODEL, startEngine, TINY_GUIDED, TINY_LONG } from "../../support/engine.ts";

const model = await openModel(MODEL);

/** Return the bounds for a worker that takes `milliseconds(rows)` for a batch. */
async function boundsFor(milliseconds: (rows: number) => number) {
  const run = async (_graph: string, batch: DenoiseInput) => ({ milliseconds: milliseconds(batch.rows) });
  return calibrate(model, { run: run as unknown as WorkerPool["run"] });
}

test("a batch grows until doubling it brings no throughput", async () => {
  const cases: [(rows: number) => number, number, number][] = [
    [(rows) => 60 * rows, 128, 128],
    [(rows) => Math.max(60, 24 * rows), 512, 256],
    // Short batches may be larger without a gain.
    [(rows) => 10 * rows, 512, 128],
    [(rows) => 8 + 2 * rows, 64 * 128, 256],
    // One measurement was disturbed.
    [(rows) => (rows === 4 ? 120 : Math.max(60, 12 * rows)), 8 * 128, 256],
    // A longer batch would delay new requests.
    [(rows) => 200 + 20 * rows, 8 * 128, 4 * 128],
  ];
  // A part that takes about as long as the whole is not worth a worker of its own.
  for (const [milliseconds, maxTokens, lightTokens] of cases)
    assert.deepEqual(await boundsFor(milliseconds), { maxTokens, lightTokens, spreadTokens: lightTokens });
});

test("a measured batch is masked and draws a sixteenth of the positions of each row, by the model's defaults", async () => {
  const batches: DenoiseInput[] = [];
  const run = async (_graph: string, batch: DenoiseInput) => {
    batches.push(batch);
    return { milliseconds: 60 * batch.rows };
  };
  await calibrate(model, { run: run as unknown as WorkerPool["run"] });
  // Sizes 1 and 2, then 2 and 4, each once to warm up and five times in turn: neither doubling brought more.
  const inTurn = (...sizes: number[]) => Array.from({ length: 6 }, () => sizes).flat();
  assert.deepEqual(
    batches.map(({ rows }) => rows),
    [...inTurn(1, 2), ...inTurn(2, 4)],
  );
  assert.ok(batches.every(({ padded }) => padded === 128));
  const { tokens, length, picks, draws, maskBias, ...drawn } = batches[1]!;
  const { temperature, top_k, top_p } = defaultsOf(model.manifest);
  assert.ok(temperature !== 1 && top_p !== 1);
  assert.deepEqual(new Set(drawn.temperature), new Set([Math.fround(temperature)]));
  assert.deepEqual(new Set(drawn.topK), new Set([top_k]));
  assert.deepEqual(new Set(drawn.topP), new Set([Math.fround(top_p)]));
  assert.deepEqual([...new Set(tokens)], [model.manifest.mask_token_id]);
  assert.deepEqual([...length], [128, 128]);
  assert.deepEqual(
    [...picks],
    [0, 1].flatMap((row) => [0, 1, 2, 3, 4, 5, 6, 7].flatMap((at) => [row, at])),
  );
  assert.deepEqual([...draws], [...Array(16).keys()]);
  assert.deepEqual([...maskBias], [-1e9, -1e9]);
});

test("a size that does not fit in memory ends the measurement, unless it is the first", async () => {
  const until = (most: number) => (rows: number) => {
    if (rows > most) throw new ModelFailure("the batch ended 2 worker processes (exit code 71)");
    return Math.max(60, 12 * rows);
  };
  assert.equal((await boundsFor(until(4))).maxTokens, 4 * 128);
  await assert.rejects(boundsFor(until(1)), ModelFailure);
});

test("with a long context, a batch of the longest rows must fit into the memory too", async () => {
  const long = await openModel(TINY_LONG, "fp32");
  const tried: number[] = [];
  const run = async (_graph: string, { rows, padded }: DenoiseInput) => {
    if (padded === 4096) tried.push(rows);
    if (padded === 4096 && rows > 2) throw new MemoryFailure("the batch ended 2 worker processes");
    return { milliseconds: 1 };
  };
  const limits = await calibrate(long, { run: run as unknown as WorkerPool["run"] });
  assert.deepEqual(tried, [16, 8, 4, 2]);
  assert.equal(limits.maxTokens, 16 * 4096);
  assert.deepEqual([mostTokens(limits, 3968), mostTokens(limits, 4096)], [16 * 4096, 2 * 4096]);
  const broken = async (_graph: string, { padded }: DenoiseInput) => {
    if (padded === 4096) throw new ModelFailure("as a graph that cannot run");
    return { milliseconds: 1 };
  };
  await assert.rejects(calibrate(long, { run: broken as unknown as WorkerPool["run"] }), ModelFailure);
});

test("an engine is ready before it measures its batches, and measures while requests run", async () => {
  const engine = await startEngine({ maxBatchTokens: "auto" }, TINY_GUIDED);
  assert.ok(engine.ready);
  const { pool } = engine;
  const run = pool.run.bind(pool);
  // Every batch runs; only the time is given, so that the measurement ends after a few sizes.
  pool.run = async (graph, batch, attempts) => ({
    ...(await run(graph, batch, attempts)),
    milliseconds: 60 * batch.rows,
  });
  const measured = engine.measureBatches();
  const answer = await engine.submit({ prompt: "", length: 8, steps: 4, seed: 1 }).result;
  assert.equal(answer.usage.completion_tokens, 8);
  await measured;
  assert.equal(engine.bounds.maxTokens, engine.model.manifest.context_length);
});
