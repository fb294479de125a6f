/** Several models under mixed load: every seeded answer is that of the model alone, bit for bit. */

import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import type { Answer } from "../../src/engine/answers/answer.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { MODEL, openEngine } from "../support/engine.ts";
import { ask, MASK, PLAIN, PROTEINS, startRegistry } from "../support/models.ts";

const request = (prompt: string, seed: number): GenerateRequest => ({
  ...{ prompt, length: 8 + seed, steps: 4 + (seed % 5), seed, logprobs: true, trace: true },
});
/** A model, and a text that it can continue. */
interface Served {
  folder: string;
  prompt: string;
}

const PAIRS: readonly (readonly [Served, Served])[] = [
  [
    { folder: PLAIN, prompt: "Once" },
    { folder: MASK, prompt: "Once" },
  ],
  [
    { folder: MODEL, prompt: "Once upon a time" },
    { folder: PROTEINS, prompt: "MKT" },
  ],
];

const namesOf = (pair: readonly Served[]) => pair.map(({ folder }) => basename(folder)).join(" and ");

const visible = ({ samples, trace, receipt }: Answer) => ({ samples, trace, receipt });

/** Return the answers of a model to seeds, without any other model. */
async function alone({ folder, prompt }: Served, seeds: readonly number[]) {
  const engine = await openEngine({}, folder);
  try {
    const answers = await Promise.all(seeds.map((seed) => engine.submit(request(prompt, seed)).result));
    return answers.map(visible);
  } finally {
    await engine.pool.close();
  }
}

const SEEDS = [1, 2, 3, 4, 5, 6];

for (const pair of PAIRS)
  for (const maxLoaded of [1, 2])
    test(`${namesOf(pair)}, room for ${maxLoaded}: answers are those of each alone`, async () => {
      const expected = [await alone(pair[0], SEEDS), await alone(pair[1], SEEDS)];
      const models = await startRegistry([pair[0].folder, pair[1].folder], { maxLoaded });
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
            const { folder, prompt } = pair[m]!;
            const answer = await ask(models, basename(folder), request(prompt, seed));
            assert.deepEqual(visible(answer), expected[m]![i]);
          }
      });
      await Promise.all(clients);
      assert.equal(loads > 1, maxLoaded === 1, `${loads} loads`);
      assert.equal(models.models.filter(({ state }) => state === "loaded").length, maxLoaded);
    });
