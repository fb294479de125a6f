import assert from "node:assert/strict";
import { test } from "node:test";
import { calibrate } from "../../src/engine/calibrate.ts";
import type { WorkerPool } from "../../src/runtime/pool.ts";
import type { DenoiseBatch } from "../../src/runtime/protocol.ts";
import { startEngine, TINY_GUIDED } from "../support.ts";

test("a call grows until doubling it brings no throughput", async () => {
  const engine = await startEngine({ maxBatchTokens: "auto" }, TINY_GUIDED);
  try {
    const bounds = async (milliseconds: (rows: number) => number) => {
      // Only the clock is made up: every call runs.
      let time = 0;
      const run = async (graph: "denoise", batch: DenoiseBatch) => {
        time += milliseconds(batch.rows);
        return engine.runtime.run(graph, batch);
      };
      const limits = await calibrate(engine.model, { run } as unknown as WorkerPool, { now: () => time });
      const { spreadTokens, ...bounds } = limits;
      // A part that takes about as long as the whole is worth no worker of its own.
      assert.equal(spreadTokens, bounds.lightTokens);
      return bounds;
    };
    assert.deepEqual(await bounds((rows) => 60 * rows), { maxTokens: 128, lightTokens: 128 });
    assert.deepEqual(await bounds((rows) => Math.max(60, 24 * rows)), { maxTokens: 512, lightTokens: 256 });
    // Short calls may be as large, for nothing.
    assert.deepEqual(await bounds((rows) => 10 * rows), { maxTokens: 512, lightTokens: 128 });
    assert.deepEqual(await bounds((rows) => 8 + 2 * rows), { maxTokens: 64 * 128, lightTokens: 256 });
    // One doubling that was disturbed.
    assert.deepEqual(await bounds((rows) => (rows === 4 ? 120 : Math.max(60, 12 * rows))), {
      maxTokens: 8 * 128,
      lightTokens: 256,
    });
    // A longer call would keep newcomers waiting.
    assert.deepEqual(await bounds((rows) => 200 + 20 * rows), { maxTokens: 8 * 128, lightTokens: 4 * 128 });
    assert.ok(engine.batchTokens >= 128);
  } finally {
    await engine.runtime.close();
  }
});
