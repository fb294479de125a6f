/** Several models under mixed load: every seeded answer is that of the model alone, bit for bit. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answer } from "../../src/engine/answers/answer.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { openEngine } from "../support/engine.ts";
import { ask, MASK, PLAIN, startRegistry } from "../support/models.ts";

const NAMES = ["tiny-plain", "tiny-mask"] as const;
const request = (seed: number): GenerateRequest => ({
  ...{ prompt: "Once", length: 8 + seed, steps: 4 + (seed % 5), seed, logprobs: true, trace: true },
});
const visible = ({ samples, trace, receipt }: Answer) => ({ samples, trace, receipt });

/** Return the answers of a model to seeds, without any other model. */
async function alone(folder: string, seeds: readonly number[]) {
  const engine = await openEngine({}, folder);
  try {
    const answers = await Promise.all(seeds.map((seed) => engine.submit(request(seed)).result));
    return answers.map(visible);
  } finally {
    await engine.pool.close();
  }
}

const SEEDS = [1, 2, 3, 4, 5, 6];
const expected = await Promise.all([alone(PLAIN, SEEDS), alone(MASK, SEEDS)]);

for (const maxLoaded of [1, 2])
  test(`under mixed load with room for ${maxLoaded}, answers are those of each model alone`, async () => {
    const models = await startRegistry([PLAIN, MASK], { maxLoaded });
    let loads = 0;
    models.on("engine", (engine) => {
      loads++;
      const places = models.models.filter(({ hasPlace }) => hasPlace).length;
      assert.ok(places <= maxLoaded);
      engine.on("batch", ({ groups }) => {
        for (const { model } of groups) assert.equal(model, engine.model);
      });
    });
    // Clients that each ask the two models in turn, at different points.
    const clients = Array.from({ length: 4 }, async (_, client) => {
      for (const [i, seed] of SEEDS.entries())
        for (const m of client % 2 === 0 ? [0, 1] : [1, 0]) {
          const answer = await ask(models, NAMES[m]!, request(seed));
          assert.deepEqual(visible(answer), expected[m]![i]);
        }
    });
    await Promise.all(clients);
    assert.equal(loads > 1, maxLoaded === 1, `${loads} loads`);
    assert.equal(models.models.filter(({ state }) => state === "loaded").length, maxLoaded);
  });
