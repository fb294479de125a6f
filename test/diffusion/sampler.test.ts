import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { LOG_LINEAR, stayProbability } from "../../src/diffusion/schedule.ts";
import type { Order } from "../../src/diffusion/step.ts";
import { chiSquare, drive, softmax, type ToyDenoiser, type ToyParams, toySample } from "./toy.ts";

const base = { prompt: [], sample: 0, temperature: 1, topK: 0, topP: 1, order: "random" as const };

interface GoldenToy {
  vocab_size: number;
  samples: (Omit<ToyParams, "sample" | "topK" | "topP" | "order"> & { order?: Order } & {
    tokens: number[];
    reveals: [number, number, number][][];
  })[];
}

const golden: GoldenToy = JSON.parse(readFileSync(new URL("../golden/toy.json", import.meta.url), "utf8"));

for (const expected of golden.samples)
  test(`equals the oracle, ${JSON.stringify(expected, ["steps", "length", "temperature"])}`, () => {
    const maskId = golden.vocab_size - 1;
    const logits = (canvas: Int32Array, position: number) => {
      const mix = canvas.reduce((sum, token, j) => sum + token * (j + 1), 0) % 1000;
      return Array.from({ length: maskId }, (_, v) => ((17 * position + 31 * v + 7 * mix) % 23) / 4);
    };
    const denoise: ToyDenoiser = (canvas, position) =>
      softmax(logits(canvas, position), expected.temperature);
    const { tokens, steps } = drive({ ...base, ...expected }, maskId, denoise);
    assert.deepEqual(tokens, expected.tokens);
    assert.deepEqual(
      steps.map((step) => step.revealed.map(({ position, token }) => [position, token])),
      expected.reveals.map((step) => step.map(([position, token]) => [position, token])),
    );
  });

test("the step at which a position is revealed has the exact distribution (chi-square)", () => {
  const steps = 8;
  const observed = new Array<number>(steps).fill(0);
  const length = 50;
  for (let seed = 0; seed < 400; seed++)
    for (const record of drive({ ...base, length, steps, seed }, 2, () => [0.5, 0.5]).steps)
      if (record.step < steps) observed[record.step]! += record.revealed.length;
  let masked = 1;
  const expected = observed.map((_, k) => {
    const stay = stayProbability(LOG_LINEAR, steps, k);
    const share = masked * (1 - stay);
    masked *= stay;
    return share * 400 * length;
  });
  // 7 degrees of freedom, p = 0.001.
  assert.ok(chiSquare(observed, expected) < 24.32);
});

test("generated sequences have the exact joint distribution of a denoiser with memory (chi-square)", () => {
  // Three tokens, two positions, two steps. The second draw depends on the first.
  const mask = 3;
  const denoise: ToyDenoiser = (canvas, position) => {
    const other = canvas[1 - position]!;
    return other === mask ? [0.5, 0.3, 0.2] : softmax([other + position, 1.5 - other, 0.4 * other]);
  };
  const steps = 2;
  const [stay0, stay1] = [0, 1].map((k) => stayProbability(LOG_LINEAR, steps, k)) as [number, number];
  const exact = new Map<string, number>();
  const walk = (canvas: number[], step: number, weight: number) => {
    const masked = [0, 1].filter((i) => canvas[i] === mask);
    if (masked.length === 0) {
      exact.set(canvas.join(), (exact.get(canvas.join()) ?? 0) + weight);
      return;
    }
    const stay = [stay0, stay1][step] ?? 0;
    for (let set = 0; set < 2 ** masked.length; set++) {
      const shown = masked.filter((_, i) => set & (2 ** i));
      const chance =
        shown.length === 0
          ? stay ** masked.length
          : (1 - stay) ** shown.length * stay ** (masked.length - shown.length);
      if (chance === 0) continue;
      const p = shown.map((i) => denoise(Int32Array.from(canvas), i));
      for (let code = 0; code < 3 ** shown.length; code++) {
        const next = [...canvas];
        let w = weight * chance;
        shown.forEach((i, j) => {
          const token = Math.floor(code / 3 ** j) % 3;
          next[i] = token;
          w *= p[j]![token]!;
        });
        walk(next, step + 1, w);
      }
    }
  };
  walk([mask, mask], 0, 1);

  const keys = [...exact.keys()].sort();
  const draws = 20_000;
  const counts = new Map<string, number>();
  for (let seed = 0; seed < draws; seed++) {
    const key = drive({ ...base, length: 2, steps, seed }, mask, denoise).tokens.join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  assert.equal(keys.length, 9);
  const statistic = chiSquare(
    keys.map((key) => counts.get(key) ?? 0),
    keys.map((key) => exact.get(key)! * draws),
  );
  // 8 degrees of freedom, p = 0.001.
  assert.ok(statistic < 26.12, `chi-square ${statistic}`);
});

test("every position is revealed exactly once, with any budget", () => {
  for (const [length, steps] of [
    [40, 1],
    [5, 64],
    [1, 1],
    [1, 1024],
    [255, 3],
  ] as const) {
    const prompt = length === 255 ? [4] : [1, 2];
    const {
      tokens,
      steps: records,
      passes,
    } = drive({ ...base, prompt, length, steps, seed: 5 }, 6, () => [0, 0, 0, 1, 0, 0]);
    const positions = records.flatMap((record) => record.revealed.map((reveal) => reveal.position));
    assert.deepEqual(
      positions.toSorted((a, b) => a - b),
      Array.from({ length }, (_, i) => prompt.length + i),
    );
    assert.deepEqual(tokens, [...prompt, ...new Array<number>(length).fill(3)]);
    assert.equal(records.at(-1)!.masked, 0);
    assert.ok(passes.student <= Math.min(steps, length) + 1);
    assert.equal(passes.student, records.filter((record) => record.revealed.length > 0).length);
    assert.deepEqual([passes.discriminator, passes.gradient], [0, 0]);
  }
});

test("the clean-up pass runs only if a position is masked after the last step", () => {
  // One step of a long canvas leaves each position masked with probability 1e-5.
  let cleanUps = 0;
  for (let seed = 0; seed < 200; seed++) {
    const { steps } = drive({ ...base, length: 1000, steps: 1, seed }, 2, () => [1, 0]);
    assert.equal(steps.length, steps[0]!.masked > 0 ? 2 : 1);
    if (steps.length === 2) {
      cleanUps++;
      assert.equal(steps[1]!.step, 1);
      assert.equal(steps[1]!.masked, 0);
    }
  }
  assert.ok(cleanUps > 0 && cleanUps < 12, `${cleanUps} of 200; about 2 are expected`);
});

test("a plan that is not the next one, or draws that do not fit it, throw RangeError", () => {
  const sample = toySample({ ...base, length: 3, steps: 1, seed: 0 }, 2);
  const plan = sample.plan();
  const draws = (tokens: number[]) => [
    { tokens, logprobs: tokens.map(() => 0), entropies: tokens.map(() => 0) },
  ];
  assert.throws(() => sample.apply({ ...plan, step: 1 }, draws([0, 0, 0])), RangeError);
  assert.throws(() => sample.apply(plan, draws([0])), RangeError);
  assert.throws(() => sample.apply(plan, []), RangeError);
  assert.throws(() => sample.apply(plan, draws([2, 2, 2])), RangeError);
  assert.throws(() => sample.apply(plan, draws([0, 1, 0]), [0.5]), RangeError);
  assert.deepEqual(sample.plan(), plan);
  sample.apply(plan, draws([0, 1, 0]));
  assert.throws(() => sample.plan(), RangeError);
  assert.throws(() => toySample({ ...base, length: 0, steps: 1, seed: 0 }, 2), RangeError);
});

test("in order confidence each step reveals its share", () => {
  // Position i draws its token with a probability that grows with i.
  const denoise: ToyDenoiser = (_, position) => softmax([position * 0.3, 0]);
  for (const [length, steps] of [
    [20, 4],
    [7, 16],
    [5, 1],
  ] as const) {
    const params = { ...base, length, steps, seed: 3, order: "confidence" as const };
    const { steps: records, passes } = drive(params, 2, denoise);
    assert.equal(records.length, steps);
    for (const record of records) {
      const share = length * (1 - (record.step + 1) / steps);
      assert.ok(Math.abs(record.masked - share) < 1, `${record.masked} of ${share}`);
    }
    assert.equal(records.at(-1)!.masked, 0);
    assert.equal(passes.student, Math.min(steps, length));
  }
});

test("a hurried sample reveals the remaining positions in one more step", () => {
  const sample = toySample({ ...base, length: 30, steps: 8, seed: 0 }, 2);
  const draw = () => {
    const plan = sample.plan();
    const tokens = plan.candidates[0]!.positions.map(() => 1);
    return sample.apply(plan, [{ tokens, logprobs: tokens.map(() => 0), entropies: tokens.map(() => 0) }]);
  };
  draw();
  assert.equal(sample.hurried, false);
  sample.hurry();
  const last = draw();
  assert.deepEqual([sample.hurried, sample.done, last.step, last.masked], [true, true, 8, 0]);
});
