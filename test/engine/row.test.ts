import assert from "node:assert/strict";
import { test } from "node:test";
import { Sample } from "../../src/diffusion/sampler.ts";
import { LOG_LINEAR } from "../../src/diffusion/schedule.ts";
import { Row } from "../../src/engine/row.ts";

const MASK = 9;

/** A row of one masked token, which the only step reveals. */
function rowOf(steps: number, ranked: boolean): Row<string> {
  const params = {
    ...{ canvas: [1, MASK], steps, seed: 4, sample: 0, temperature: 1, topK: 0, topP: 1 },
    order: "random" as const,
  };
  return new Row("job", new Sample(params, LOG_LINEAR, MASK), 32, 0, ranked);
}

/** Takes every step, each reveal drawn as token 5. */
function finish(row: Row<string>): void {
  while (!row.sample.done) {
    if (row.skips) row.skip();
    else {
      const candidates = row.plan.candidates.map(({ positions }) => ({
        tokens: Int32Array.from(positions, () => 5),
        logprobs: Float32Array.from(positions, () => -1),
      }));
      row.takeDraws({ candidates, rewards: [], entropy: 0 });
    }
  }
}

test("a finished sample that is to be ranked waits for its score, and goes first once its deadline has come", () => {
  const row = rowOf(3, true);
  finish(row);
  assert.deepEqual([row.done, row.graph, row.urgent], [false, "score", false]);
  row.hurry();
  assert.equal(row.urgent, true);
  // Nothing was left out: the answer is not one of a deadline.
  assert.equal(row.sample.hurried, false);
  assert.deepEqual([...row.canvases[0]!], [1, 5]);
  row.takeRewards([1.5]);
  assert.deepEqual([row.done, row.reward, row.sample.passes.discriminator], [true, 1.5, 1]);
});

test("a row whose deadline has come leaves out the steps that are left", () => {
  const row = rowOf(1000, false);
  assert.ok(row.skips, "the first of so many steps reveals something: choose another seed");
  row.hurry();
  assert.deepEqual([row.urgent, row.skips, row.sample.hurried], [true, false, true]);
  finish(row);
  assert.deepEqual([...row.tokens], [1, 5]);
});
