import assert from "node:assert/strict";
import { test } from "node:test";
import { type Model, openModel } from "../../src/model/model.ts";
import { splitOf } from "../../src/runtime/split.ts";
import { TINY_GUIDED } from "../support/engine.ts";

test("auto divides the batches of a small model in two, with half of the threads each", async () => {
  const model = await openModel(TINY_GUIDED);
  assert.deepEqual(await splitOf("auto", model, 8), { parts: 2, threads: 4 });
  assert.deepEqual(await splitOf("auto", model, 3), { parts: 2, threads: 1 });
  assert.equal(await splitOf("auto", model, 1), undefined);
});

test("auto does not divide the batches of a model that is too large to copy", async () => {
  const model = await openModel(TINY_GUIDED);
  const { weights, graphs, discriminator_weights } = model.manifest;
  const others = [...Object.values(graphs).map(({ fp32 }) => fp32!), discriminator_weights!];
  const most = (128 << 20) - others.reduce((sum, { bytes }) => sum + bytes, 0);
  const withWeights = (bytes: number): Model => ({
    ...model,
    manifest: { ...model.manifest, weights: { ...weights!, bytes } },
  });
  assert.deepEqual(await splitOf("auto", withWeights(most), 8), { parts: 2, threads: 4 });
  assert.equal(await splitOf("auto", withWeights(most + 1), 8), undefined);
  assert.deepEqual(await splitOf(2, withWeights(most + 1), 8), { parts: 2, threads: 4 });
});

test("a number chooses the parts, each with at least one thread", async () => {
  const model = await openModel(TINY_GUIDED);
  assert.deepEqual(await splitOf(4, model, 2), { parts: 4, threads: 1 });
  assert.deepEqual(await splitOf(3, model, 16), { parts: 3, threads: 5 });
  assert.equal(await splitOf(1, model, 8), undefined);
});
