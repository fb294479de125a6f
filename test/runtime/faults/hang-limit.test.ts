import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { openModel } from "../../../src/model/model.ts";
import { HangLimit } from "../../../src/runtime/hang-limit.ts";
import { WorkerPool } from "../../../src/runtime/pool.ts";
import type { Batch, Canvases, GraphName } from "../../../src/runtime/protocol.ts";
import { TINY_GUIDED } from "../../support/engine.ts";

const batch = (rows: number, graph: GraphName = "denoise") =>
  ({ graph, input: { rows, padded: 128 } }) as Batch;

test("a batch has hung after 30 times the estimate for its graph and size, and at least 10 s", () => {
  const limit = new HangLimit();
  assert.equal(limit.of(batch(8)), 300_000);
  limit.observe(batch(8), 100);
  assert.equal(limit.of(batch(8)), 10_000);
  limit.observe(batch(8), 1000);
  assert.equal(limit.of(batch(8)), 30_000);
  // A new size uses the slowest rate of its graph.
  assert.equal(limit.of(batch(32)), 120_000);
  limit.observe(batch(32), 2000);
  assert.equal(limit.of(batch(32)), 60_000);
  assert.equal(limit.of(batch(8)), 30_000);
  assert.equal(limit.of(batch(8, "tilt")), 300_000);
});

test("the estimate rises at once and falls by a tenth of the distance", () => {
  const limit = new HangLimit();
  limit.observe(batch(8), 10_000);
  limit.observe(batch(8), 1_000);
  assert.ok(Math.abs(limit.of(batch(8)) - 30 * 9_100) < 1e-6);
  for (let i = 0; i < 300; i++) limit.observe(batch(8), 1_000);
  assert.ok(Math.abs(limit.of(batch(8)) - 30_000) < 1);
  limit.observe(batch(8), 2_000);
  assert.ok(Math.abs(limit.of(batch(8)) - 60_000) < 1e-6);
});

test("a worker whose batch has hung is replaced, and the batch fails after its attempts", async () => {
  const { graphs } = await openModel(TINY_GUIDED);
  const limit = new HangLimit({ leastMs: 50, firstMs: 50 });
  const pool = await WorkerPool.start({ graphs, device: "cpu", threads: 1 }, 1, limit);
  try {
    const rows = 4096;
    const padded = 256;
    const tokens = new Int32Array(rows * padded);
    const slow: Canvases = {
      rows,
      padded,
      tokens,
      length: new Int32Array(rows).fill(padded),
      sigma: new Float32Array(rows),
    };
    const ended = once(pool, "restart");
    await assert.rejects(pool.run("score", slow, 1), /ended 1 worker processes/);
    const [{ reason }] = await ended;
    assert.equal(reason, "no answer for 50 ms");
    await once(pool, "replaced");
    assert.equal(pool.healthy, 1);
  } finally {
    await pool.close();
  }
});
