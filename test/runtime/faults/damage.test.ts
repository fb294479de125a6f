/** Models that return numbers that are not finite, and workers with damaged memory. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { FAULTS } from "../../../loadtest/chaos/faults.ts";
import type { Engine, EngineLimits } from "../../../src/engine/engine.ts";
import { NonFiniteError } from "../../../src/errors.ts";
import type { PoolEvents } from "../../../src/runtime/pool.ts";
import { mismadeModel, withoutEmbedding } from "../../support/damage.ts";
import { startEngine } from "../../support/engine.ts";
import { scratch } from "../../support/scratch.ts";

const root = scratch("damage");

const notHere = process.platform !== "linux" && "it reaches into the process by /proc";
/** Start an engine and record how its workers end. */
async function watched(model?: string, limits: Partial<EngineLimits> = {}, workers = 1) {
  const engine = await startEngine(limits, model, workers);
  const ends: PoolEvents["restart"][0][] = [];
  engine.pool.on("restart", (end) => ends.push(end));
  return { engine, ends };
}

/** The token for which `withoutNumber` returns NaN. */
const TOKEN = 120;

/** Return a model that returns NaN for one token. */
async function withoutNumber(name: string): Promise<string> {
  return mismadeModel(join(root, name), {
    "weights.fp16.safetensors": (weights) => withoutEmbedding(weights, TOKEN),
  });
}

const ask = (engine: Engine, prompt_tokens: number[], seed: number) =>
  engine.submit({ prompt_tokens, length: 12, steps: 4, seed, temperature: 1 }).result;

for (const workers of [1, 2])
  test(`no number for a token fails its requests; of ${workers} workers each restarts once`, async () => {
    const { engine, ends } = await watched(await withoutNumber(`nan-${workers}`), {}, workers);
    let counted = 0;
    engine.pool.on("non-finite", () => counted++);
    for (let seed = 0; seed < 6; seed++) {
      const guilty = ask(engine, [1, 2, TOKEN], seed);
      const others = [ask(engine, [1, 2, 3], seed), ask(engine, [4], seed)];
      await assert.rejects(guilty, NonFiniteError);
      for (const { samples } of await Promise.all(others)) assert.equal(samples[0]!.tokens.length, 12);
    }
    assert.ok(ends.length >= 1 && ends.length <= workers, `${ends.length} restarts`);
    assert.ok(ends.every(({ reason }) => reason === "numbers that are not finite"));
    // The first such batch of each original worker runs twice.
    assert.ok(counted > 6 && counted <= 6 + workers, `${counted} batches`);
  });

test("after a fault of the model, an older worker with damaged memory is still replaced", {
  skip: notHere,
}, async () => {
  const { engine, ends } = await watched(await withoutNumber("both"), {}, 2);
  const sound = (seed: number) => ask(engine, [1, 2, 3], seed);
  const seeds = [1, 2, 3, 4];
  const expected = (await Promise.all(seeds.map(sound))).map(({ samples }) => samples);
  const before = engine.pool.pids;
  await assert.rejects(ask(engine, [TOKEN], 1), NonFiniteError);
  assert.equal(ends.length, 1);
  const older = engine.pool.pids.find((pid) => before.includes(pid));
  await FAULTS.nan(older!);
  for (const [i, seed] of seeds.entries()) assert.deepEqual((await sound(seed)).samples, expected[i]);
  // The newer worker may answer before the end of the older one is noticed.
  while (ends.length < 2) await once(engine.pool, "restart");
  assert.deepEqual(
    ends.map(({ pid }) => pid),
    [before.find((pid) => pid !== older), older],
  );
});
