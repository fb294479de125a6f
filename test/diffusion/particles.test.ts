import assert from "node:assert/strict";
import { test } from "node:test";
import { effectiveSampleSize, resample } from "../../src/diffusion/particles.ts";
import { chiSquare, drive, softmax, type ToyDenoiser } from "./toy.ts";

const MASK = 3;
const TEXTS = [0, 1, 2].flatMap((a) => [0, 1, 2].map((b) => [a, b] as const));

const denoise: ToyDenoiser = (canvas, position) => {
  const other = canvas[1 - position]!;
  return other === MASK ? softmax([0.2 + position, 1.1, 0.4]) : softmax([other, 1.5 - other, 0.4 * position]);
};
/** Masks have a reward too, which must cancel out. */
const reward = (canvas: ArrayLike<number>) =>
  0.4 * canvas[0]! - 0.3 * canvas[1]! + (canvas[0] === canvas[1] ? 0.5 : 0);
const scorer = { reward, tilt: (p: number[]) => p };

test("the effective sample size is that of the weights, and resampling is proportional to them", () => {
  const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-12, `${a} and ${b}`);
  near(effectiveSampleSize([0, 0, 0, 0]), 4);
  near(effectiveSampleSize([5, -Infinity, 5, -Infinity]), 2);
  near(effectiveSampleSize([1000, 0, 0]), 1);
  assert.deepEqual(resample([0, 0, 0], 0.5), [0, 1, 2]);
  assert.deepEqual(resample([Math.log(0.5), Math.log(0.25), Math.log(0.25)], 0.5), [0, 0, 2]);
  const weights = [0.1, 0.45, 0.05, 0.4];
  const logs = weights.map(Math.log);
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < 1000; i++) for (const ancestor of resample(logs, (i + 0.5) / 1000)) counts[ancestor]!++;
  // The mean over the uniform is exact, since the uniforms are evenly spread.
  for (const [i, weight] of weights.entries()) assert.ok(Math.abs(counts[i]! / 4000 - weight) < 1e-3);
});

/** Return the plain sampler's distribution of the texts in two steps: probability of each reveal order. */
function plain(steps: number): number[] {
  const empty = Int32Array.of(MASK, MASK);
  const [first, second] = [denoise(empty, 0), denoise(empty, 1)];
  // Both positions are revealed in one step with probability 1 / steps, each order is as likely otherwise.
  const together = 1 / steps;
  return TEXTS.map(([a, b]) => {
    const left = first[a]! * denoise(Int32Array.of(a, MASK), 1)[b]!;
    const right = second[b]! * denoise(Int32Array.of(MASK, b), 0)[a]!;
    return together * first[a]! * second[b]! + ((1 - together) / 2) * (left + right);
  });
}

for (const [steps, resampleBelow] of [
  [1, 0.5],
  [3, 0],
  [3, 1],
] as const)
  test(`the distribution is p(x) exp(r(x)), ${steps} steps, resampled below ${resampleBelow}`, () => {
    const weights = plain(steps).map((p, i) => p * Math.exp(reward(TEXTS[i]!)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const draws = 3000;
    const counts = TEXTS.map(() => 0);
    for (let seed = 0; seed < draws; seed++) {
      const { tokens } = drive(
        {
          ...{ prompt: [], length: 2, steps, seed, sample: 0, temperature: 1, topK: 0, topP: 1 },
          // With so many particles the bias of the choice, about 1 / particles, is not seen.
          ...{ order: "random", smc: { particles: 32, resampleBelow } },
        },
        MASK,
        denoise,
        scorer,
      );
      counts[3 * tokens[0]! + tokens[1]!]!++;
    }
    const statistic = chiSquare(
      counts,
      weights.map((weight) => (draws * weight) / total),
    );
    assert.ok(statistic < 26.12, `chi-square ${statistic}, 8 degrees of freedom, p = 0.001`);
  });
