/** Weights that a recipe writes: of the recorded size and hash, and with the moments of the original. */

import assert from "node:assert/strict";
import { cpSync, existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { record } from "../../loadtest/device/batches.ts";
import { copyWithRecipe, halfBits, writeWeights } from "../../loadtest/device/recipe.ts";
import { openModel } from "../../src/model/model.ts";
import { MODEL, startEngine } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

test("halfBits rounds to the nearest float16", () => {
  const cases = [
    [0, 0],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [2 ** -24, 1],
    [2 ** -14, 0x400],
    [2 ** -14 - 2 ** -24, 0x3ff],
    [1 / 3, 0x3555],
    [0.99999, 0x3c00],
  ] as const;
  for (const [value, bits] of cases) assert.equal(halfBits(value), bits, `${value}`);
});

test("a folder with a recipe gets weights, and its model runs", async () => {
  const root = scratch("recipe");
  const { folder } = await openModel(MODEL);
  const [packed, there] = [join(root, "packed"), join(root, "there")];
  copyWithRecipe(folder, packed);
  assert.equal(existsSync(join(packed, "weights.fp16.safetensors")), false);
  cpSync(packed, there, { recursive: true });
  writeWeights(there);
  // Opening checks the hashes that the packing machine wrote.
  const { model, pool } = await startEngine({}, there);
  const recorded = await record(model, pool, { rows: 2, length: 16, steps: 2 });
  for (const { result } of recorded) {
    if ("entropy" in result) assert.ok(result.entropy.every((value) => value > 0.1 && value < 12));
    if ("reward" in result) assert.ok(result.reward.every(Number.isFinite));
  }
  assert.deepEqual(recorded.map(({ batch }) => batch.graph).slice(-2), ["tilt", "score"]);
});
