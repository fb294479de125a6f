import assert from "node:assert/strict";
import { test } from "node:test";
import type { Sample } from "../../../src/diffusion/sampler.ts";
import { Speed } from "../../../src/engine/scheduling/speed.ts";

/** Return a row on a canvas of 64 tokens. */
function rowWith(params: object, stepsLeft: number, masked: number) {
  const canvas = { masked: Array.from({ length: masked }, (_, i) => i) };
  return { padded: 64, sample: { params, stepsLeft, canvas } as unknown as Sample };
}

const GUIDANCE = { candidates: 3, scaleStart: 1, scaleEnd: 1, rerankRatio: 0.5 };

test("estimates are 0 before the first batch, and averages of batches after it", () => {
  const speed = new Speed();
  assert.equal(speed.budgetMs(64, 8, undefined), 0);
  assert.equal(speed.msPerBatch, 0);
  // The first batch, which may load the graph, counts until there is a second one.
  speed.observe("denoise", 100, 5000);
  assert.equal(speed.budgetMs(64, 8, undefined), 64 * 8 * 50);
  speed.observe("denoise", 100, 50);
  assert.equal(speed.msPerBatch, 50);
  assert.equal(speed.budgetMs(64, 8, undefined), 64 * 8 * 0.5);
  speed.observe("denoise", 100, 150);
  assert.equal(speed.msPerBatch, 60);
  assert.ok(Math.abs(speed.budgetMs(64, 8, undefined) - 64 * 8 * 0.6) < 1e-9);
});

test("a guided budget has tilted steps, and re-ranked ones that score each candidate", () => {
  const speed = new Speed();
  speed.observe("denoise", 1, 1);
  // Graphs that have not run are estimated from the student: a tilt costs four passes, a score one.
  assert.equal(speed.budgetMs(1, 8, GUIDANCE), 4 * 4 + 4 * (1 + 3));
  speed.observe("score", 1, 10);
  speed.observe("tilt", 1, 100);
  assert.equal(speed.budgetMs(1, 8, GUIDANCE), 4 * 100 + 4 * (1 + 3 * 10));
});

test("a row needs as many steps as it has left, or masked positions if these are fewer", () => {
  const speed = new Speed();
  speed.observe("denoise", 1, 1);
  speed.observe("score", 1, 10);
  const plain = { steps: 8 };
  assert.equal(speed.stepMs(rowWith(plain, 5, 9)), 64);
  assert.equal(speed.rowMs(rowWith(plain, 5, 9)), 5 * 64);
  assert.equal(speed.rowMs(rowWith(plain, 5, 2)), 2 * 64);
  // Each of four particles is denoised and scored.
  assert.equal(speed.stepMs(rowWith({ steps: 8, smc: { particles: 4 } }, 5, 9)), 64 * 4 * 11);
});
