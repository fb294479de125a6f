/** Masking revealed tokens again: distribution, schedule and end, on toy denoisers. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type Remask, remaskProbabilities, remaskProbability } from "../../src/diffusion/remask.ts";
import { LOG_LINEAR, stayProbability } from "../../src/diffusion/schedule.ts";
import { chiSquare, drive, softmax, type ToyDenoiser } from "./toy.ts";

const base = { prompt: [], sample: 0, temperature: 1, topK: 0, topP: 1, order: "random" as const };
const everywhere = { from: 0, to: 1 };

/** Return every canvas that a step may lead to, with its probability. */
function moves(
  canvas: readonly number[],
  mask: number,
  [stay, sigma]: readonly [number, number],
  denoise: ToyDenoiser,
): [number[], number][] {
  let reached: [number[], number][] = [[[], 1]];
  for (const [i, token] of canvas.entries()) {
    const ways: [number, number][] =
      token === mask
        ? [
            [mask, stay],
            ...denoise(Int32Array.from(canvas), i).map((p, v): [number, number] => [v, p * (1 - stay)]),
          ]
        : [
            [token, 1 - sigma],
            [mask, sigma],
          ];
    reached = reached.flatMap(([before, p]) =>
      ways.filter(([, q]) => q > 0).map(([next, q]): [number[], number] => [[...before, next], p * q]),
    );
  }
  return reached;
}

test("sequences have the exact joint distribution of ReMDM with a denoiser with memory (chi-square)", () => {
  const [mask, steps] = [3, 4];
  const remask: Remask = { mode: "random", rate: 0.4, ...everywhere };
  const denoise: ToyDenoiser = (canvas, position) => {
    const other = canvas[1 - position]!;
    return other === mask ? [0.5, 0.3, 0.2] : softmax([other + position, 1.5 - other, 0.4 * other]);
  };
  let states = new Map([[[mask, mask].join(), 1]]);
  for (let k = 0; k <= steps; k++) {
    const sigma = remaskProbability(remask, LOG_LINEAR, steps, k);
    const chance = [stayProbability(LOG_LINEAR, steps, k, sigma), sigma] as const;
    const next = new Map<string, number>();
    for (const [state, p] of states)
      for (const [reached, q] of moves(state.split(",").map(Number), mask, chance, denoise))
        next.set(reached.join(), (next.get(reached.join()) ?? 0) + p * q);
    states = next;
  }
  const keys = [...states.keys()].sort();
  assert.equal(keys.length, 9);
  const draws = 20_000;
  const counts = new Map<string, number>();
  let again = 0;
  for (let seed = 0; seed < draws; seed++) {
    const { tokens, steps: records } = drive({ ...base, length: 2, steps, seed, remask }, mask, denoise);
    counts.set(tokens.join(), (counts.get(tokens.join()) ?? 0) + 1);
    again += records.reduce((sum, { remasked }) => sum + remasked!.length, 0);
  }
  const statistic = chiSquare(
    keys.map((key) => counts.get(key) ?? 0),
    keys.map((key) => states.get(key)! * draws),
  );
  assert.ok(again > draws / 10, `${again} tokens masked again`);
  // 8 degrees of freedom, p = 0.001.
  assert.ok(statistic < 26.12, `chi-square ${statistic}`);
});

for (const mode of ["random", "confidence"] as const)
  test(`masking ${mode} tokens again leaves the number of masks after each step as it is`, () => {
    const denoise: ToyDenoiser = (_, position) => softmax([position * 0.1, 0]);
    const count = (remask?: Remask) => {
      const masked = new Array<number>(10).fill(0);
      for (let seed = 0; seed < 200; seed++)
        for (const record of drive({ ...base, length: 40, steps: 10, seed, remask }, 2, denoise).steps)
          if (record.step < 10) masked[record.step]! += record.masked / 200;
      return masked;
    };
    const [plain, corrected] = [count(), count({ mode, rate: 0.3, ...everywhere })];
    for (const [k, masked] of corrected.entries())
      assert.ok(Math.abs(masked - plain[k]!) < 0.8, `step ${k}: ${masked} instead of ${plain[k]}`);
  });

test("unlikely tokens are masked again more often, as often as others in the mean", () => {
  const remask: Remask = { mode: "confidence", rate: 1, ...everywhere };
  const chances = remaskProbabilities(remask, 0.1, [0.9, 0.5, 0.01].map(Math.log));
  assert.ok(chances[0]! < chances[1]! && chances[1]! < chances[2]!);
  assert.ok(Math.abs(chances.reduce((a, b) => a + b) - 0.3) < 1e-12);
  assert.ok(Math.abs(chances[2]! / chances[0]! - Math.exp(0.89)) < 1e-12);
});

test("with any settings every position is revealed in the end, and settled tokens do not change", () => {
  const settings = fc.record({
    mode: fc.constantFrom("random" as const, "confidence" as const),
    rate: fc.double({ min: 0.01, max: 1, noNaN: true }),
    from: fc.constantFrom(0, 0.25, 0.5),
    to: fc.constantFrom(0.6, 0.9, 1),
    order: fc.constantFrom("random" as const, "spread" as const, "confidence" as const, "entropy" as const),
    steps: fc.integer({ min: 4, max: 24 }),
    blocks: fc.constantFrom(undefined, 8),
    seed: fc.nat(),
  });
  fc.assert(
    fc.property(settings, ({ mode, rate, from, to, order, steps, blocks: blockLength, seed }) => {
      const params = { ...base, prompt: [1, 1], length: 23, steps, seed, order, blockLength };
      const canvas = new Map<number, number>();
      const settledTokens = new Map<number, number>();
      const remask = { mode, rate, from, to };
      const { tokens, steps: records } = drive({ ...params, remask }, 4, () => [0.1, 0.2, 0.3, 0.4]);
      for (const { step, revealed, remasked, settled, masked } of records) {
        for (const { position, token } of revealed) {
          assert.ok(!canvas.has(position));
          canvas.set(position, token);
        }
        for (const position of remasked!) {
          assert.ok(canvas.delete(position) && !revealed.some((reveal) => reveal.position === position));
          assert.ok(step < steps - 1);
        }
        assert.equal(masked, 23 - canvas.size);
        for (const [position, token] of settledTokens) assert.equal(canvas.get(position), token);
        for (const [position, token] of canvas) if (position < settled!) settledTokens.set(position, token);
      }
      assert.equal(records.at(-1)!.settled, 25);
      assert.deepEqual(
        tokens.slice(2),
        Array.from({ length: 23 }, (_, i) => canvas.get(i + 2)),
      );
      if (order !== "random") assert.ok(records.length <= steps);
    }),
    { numRuns: 150 },
  );
});
