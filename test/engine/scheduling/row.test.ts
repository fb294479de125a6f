import assert from "node:assert/strict";
import { test } from "node:test";
import type { Guidance } from "../../../src/diffusion/guidance.ts";
import { Sample } from "../../../src/diffusion/sampler.ts";
import { LOG_LINEAR } from "../../../src/diffusion/schedule.ts";
import type { SampleGroup } from "../../../src/engine/sample-group.ts";
import type { RowDraws } from "../../../src/engine/scheduling/batch.ts";
import { Row } from "../../../src/engine/scheduling/row.ts";
import { costOf } from "../../../src/engine/scheduling/speed.ts";
import type { GraphName } from "../../../src/runtime/protocol.ts";

const MASK = 9;

/** Return a row with `masks` masked positions. */
function rowOf(steps: number, ranked: boolean, guidance?: Guidance, masks = 1): Row {
  const canvas = [1, ...new Array<number>(masks).fill(MASK)];
  const params = {
    ...{ canvas, steps, guidance, seed: 4, sample: 0, temperature: 1, topK: 0, topP: 1 },
    order: "random" as const,
  };
  const row = new Row(
    { params: { ranked }, endIfComplete() {} } as unknown as SampleGroup,
    new Sample(params, LOG_LINEAR, MASK),
    32,
  );
  row.admit(0);
  return row;
}

/** Return draws of token 5 for the planned step of a row. */
function drawn({ plan }: Row): RowDraws {
  const candidates = plan.candidates.map(({ positions }) => ({
    tokens: Int32Array.from(positions, () => 5),
    logprobs: Float32Array.from(positions, () => -1),
    entropies: Float32Array.from(positions, () => 1),
  }));
  return { candidates, rewards: plan.kind === "tilt" ? [0] : [], entropy: 0 };
}

/** Take every step with draws of token 5. */
function finish(row: Row): void {
  while (!row.sample.done) {
    if (row.skips) row.skip();
    else row.apply(drawn(row));
  }
}

test("a finished ranked sample waits for its reward, and is urgent once its deadline has come", () => {
  const row = rowOf(3, true);
  finish(row);
  assert.deepEqual([row.done, row.graph, row.urgent], [false, "score", false]);
  row.hurry();
  assert.equal(row.urgent, true);
  // No step was skipped, so the deadline did not cut the answer short.
  assert.equal(row.sample.hurried, false);
  assert.deepEqual([...row.canvases[0]!], [1, 5]);
  row.apply([1.5]);
  assert.deepEqual([row.done, row.reward, row.sample.passes.discriminator], [true, 1.5, 1]);
});

test("a row whose deadline has come skips the remaining steps", () => {
  const row = rowOf(1000, false);
  assert.ok(row.skips, "the first of these steps reveals something: choose another seed");
  row.hurry();
  assert.deepEqual([row.urgent, row.skips, row.sample.hurried], [true, false, true]);
  finish(row);
  assert.deepEqual([...row.sample.canvas.tokens], [1, 5]);
});

/** Graphs of one step in order, with the canvases of each. */
const PASSES: [rerankRatio: number, passes: [GraphName, width: number][]][] = [
  [0, [["tilt", 1]]],
  [
    1,
    [
      ["denoise", 1],
      ["score", 2],
    ],
  ],
];
for (const [rerankRatio, passes] of PASSES)
  test(`rerank_ratio ${rerankRatio} takes ${passes.join(" and ")}, and their cost is the service`, () => {
    const row = rowOf(4, false, { candidates: 2, scaleStart: 1, scaleEnd: 1, rerankRatio }, 8);
    while (row.skips) row.skip();
    const { plan } = row;
    let attained = 0;
    for (const [graph, width] of passes) {
      assert.deepEqual([row.waits, row.graph, row.width], [true, graph, width]);
      attained += 32 * width * costOf(graph);
      assert.equal(row.plan, plan);
      row.apply(graph === "score" ? [0, 1] : drawn(row));
      assert.equal(row.attained, attained);
    }
    assert.notEqual(row.plan, plan);
  });
