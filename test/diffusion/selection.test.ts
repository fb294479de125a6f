import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { blockAt, blockCount } from "../../src/diffusion/blocks.ts";
import { type Selection, select } from "../../src/diffusion/selection.ts";

const predictions = {
  logprobs: [0.5, 0.9, 0.2, 0.9].map(Math.log),
  entropies: [1.2, 0.3, 0.1, 2],
  margins: [0.3, 0.1, 0, 0.3],
};

const cases: [string, Selection, number[]][] = [
  ["the most likely tokens", { ranking: "confidence", least: 1 }, [1]],
  ["ties from the left", { ranking: "confidence", least: 2 }, [1, 3]],
  ["every token at the threshold", { ranking: "confidence", least: 1, threshold: 0.5 }, [0, 1, 3]],
  ["at least one below the threshold", { ranking: "confidence", least: 1, threshold: 0.95 }, [1]],
  ["the budget's share below the threshold", { ranking: "confidence", least: 3, threshold: 0.9 }, [0, 1, 3]],
  ["all at a threshold of 0", { ranking: "confidence", least: 1, threshold: 0 }, [0, 1, 2, 3]],
  ["the lowest entropies", { ranking: "entropy", least: 2 }, [1, 2]],
  ["entropies up to a sum", { ranking: "entropy", least: 1, entropyBudget: 1.6 }, [0, 1, 2]],
  ["the largest margins", { ranking: "margin", least: 2 }, [0, 3]],
  ["a sum that equals the budget", { ranking: "entropy", least: 1, entropyBudget: 0.1 }, [2]],
  ["at least one beyond the entropy budget", { ranking: "entropy", least: 1, entropyBudget: 0.05 }, [2]],
  ["all within a large entropy budget", { ranking: "entropy", least: 1, entropyBudget: 9 }, [0, 1, 2, 3]],
];

for (const [what, selection, expected] of cases)
  test(`selects ${what}`, () => assert.deepEqual(select(selection, predictions), expected));

test("a step of the budget lies in exactly one block, and every block has a step", () => {
  fc.assert(
    fc.property(
      fc
        .integer({ min: 1, max: 300 })
        .chain((steps) => fc.tuple(fc.constant(steps), fc.integer({ min: 1, max: steps }))),
      ([steps, blocks]) => {
        const seen = new Array<number>(blocks).fill(0);
        for (let step = 0; step < steps; step++) {
          const { block, start, end } = blockAt(step, steps, blocks);
          assert.ok(start <= step && step < end, `step ${step} of ${steps}, ${blocks} blocks`);
          assert.equal(start, Math.floor((block * steps) / blocks));
          seen[block]!++;
        }
        assert.ok(seen.every((count) => count >= Math.floor(steps / blocks)));
      },
    ),
  );
});

test("a canvas is cut into blocks of the given length, the last one shorter", () => {
  assert.equal(blockCount(128, 32), 4);
  assert.equal(blockCount(129, 32), 5);
  assert.equal(blockCount(5, 32), 1);
});
