import assert from "node:assert/strict";
import { test } from "node:test";
import type { Guidance } from "../../src/diffusion/guidance.ts";
import { type Budget, chooseBudget, stepsFor } from "../../src/engine/budget.ts";
import type { Quality } from "../../src/model/manifest.ts";

const RGAS: Guidance = { candidates: 4, scaleStart: 1, scaleEnd: 1, rerankRatio: 0.5 };

const cell = (sampler: Quality["sampler"], steps: number, generative_perplexity: number): Quality => ({
  sampler,
  steps,
  generative_perplexity,
  entropy: 4,
});
const CARD = [cell("plain", 4, 50), cell("plain", 16, 30), cell("rgas", 4, 32), cell("rgas", 16, 31)];

/** 10 ms for a plain step, 50 ms for a guided one. */
const forecast = ({ steps, guidance }: Budget) => steps * (guidance ? 50 : 10);
const choose = (deadlineMs: number, ways: (Guidance | undefined)[] = [undefined, RGAS], length = 128) =>
  chooseBudget(ways, CARD, length, deadlineMs, forecast);

test("auto chooses the best measured budget that fits the deadline, with a margin", () => {
  assert.deepEqual(choose(10_000), { steps: 16, guidance: undefined });
  assert.deepEqual(choose(200), { steps: 16, guidance: undefined });
  assert.deepEqual(choose(199), { steps: 4, guidance: undefined });
  assert.deepEqual(choose(10_000, [RGAS]), { steps: 16, guidance: RGAS });
  assert.deepEqual(choose(999, [RGAS]), { steps: 4, guidance: RGAS });
});

test("auto chooses at most one step for each token, and at least one step", () => {
  assert.deepEqual(choose(10_000, [undefined, RGAS], 15), { steps: 4, guidance: RGAS });
  assert.deepEqual(choose(10_000, [undefined], 16), { steps: 16, guidance: undefined });
  // Where there are measurements, no budget between them is chosen.
  for (const deadlineMs of [1, 45]) assert.deepEqual(choose(deadlineMs), { steps: 1, guidance: undefined });
  assert.deepEqual(choose(10_000, undefined, 3), { steps: 3, guidance: undefined });
});

test("a quality takes the fewest steps near enough to the best, of its sampler, one a token at most", () => {
  const table = [cell("plain", 4, 75), cell("plain", 16, 48), cell("plain", 64, 30), cell("rgas", 8, 9)];
  const levels = ["draft", "normal", "best"] as const;
  assert.deepEqual(
    levels.map((level) => stepsFor(level, "plain", table, 128)),
    [4, 16, 64],
  );
  assert.equal(stepsFor("best", "plain", table, 20), 20);
  assert.equal(stepsFor("best", "rgas", table, 20), 8);
  assert.equal(stepsFor("best", "plain", [], 20), undefined);
});

test("without measurements auto chooses as many steps as fit the deadline", () => {
  const unmeasured = (deadlineMs: number, length: number) =>
    chooseBudget([undefined, RGAS], [], length, deadlineMs, forecast);
  assert.deepEqual(unmeasured(100, 64), { steps: 8, guidance: undefined });
  assert.deepEqual(unmeasured(100_000, 64), { steps: 64, guidance: undefined });
  assert.deepEqual(unmeasured(100_000, 1000), { steps: 128, guidance: undefined });
});
