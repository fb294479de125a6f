/** Why CUDA is not used: the operator learns it however the calls are divided. */

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { type Model, openModel } from "../../src/model/model.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import { TINY_GUIDED } from "../support/engine.ts";

let model: Model;
before(async () => {
  model = await openModel(TINY_GUIDED);
});

for (const split of [undefined, { parts: 2, threads: 1 }])
  test(`a runtime that falls back to the CPU says why, with ${split?.parts ?? 1} parts`, async () => {
    const pool = await WorkerPool.start({ graphs: model.graphs, device: "auto", threads: 1, split });
    try {
      const { provider, fallback } = pool;
      if (provider === "cuda") assert.equal(fallback, undefined);
      else assert.match(fallback ?? "nothing", /CUDA|Failed to load/i);
    } finally {
      await pool.close();
    }
  });
