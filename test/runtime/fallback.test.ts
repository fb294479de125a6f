/** The server reports why CUDA is not used, with divided batches too. */

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { type Model, openModel } from "../../src/model/model.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { hideGpus } from "../support/fake-cuda.ts";

let model: Model;
before(async () => {
  model = await openModel(TINY_GUIDED);
});
hideGpus();

for (const split of [undefined, { parts: 2, threads: 1 }])
  test(`a runtime that falls back to the CPU says why, with ${split?.parts ?? 1} parts`, async () => {
    const pool = await WorkerPool.start({ graphs: model.graphs, device: "auto", threads: 1, split });
    try {
      assert.equal(pool.provider, "cpu");
      assert.match(pool.fallback!, /CUDA|no GPU/);
    } finally {
      await pool.close();
    }
  });
