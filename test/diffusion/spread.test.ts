import assert from "node:assert/strict";
import { test } from "node:test";
import { spreadSteps } from "../../src/diffusion/spread.ts";
import type { SampleParams } from "../../src/diffusion/step.ts";
import { chiSquare, drive, type ToyDenoiser, toySample } from "./toy.ts";

const base = { prompt: [1, 2], sample: 0, temperature: 1, topK: 0, topP: 1, order: "spread" as const };
const uniform: ToyDenoiser = () => [0.25, 0.25, 0.25, 0.25];

/** Return the positions that each step reveals. */
const reveals = (params: Pick<SampleParams, "steps" | "seed" | "blockLength"> & { length: number }) =>
  drive({ ...base, ...params }, 4, uniform).steps.map(({ revealed }) =>
    revealed.map(({ position }) => position),
  );

for (const [length, steps] of [
  [128, 8],
  [100, 7],
  [20, 16],
  [5, 64],
  [9, 1],
] as const)
  test(`${steps} steps of ${length} masks reveal every ${steps}th position each`, () => {
    const sets = reveals({ length, steps, seed: 3 });
    assert.equal(sets.length, steps);
    assert.deepEqual(
      sets.flat().toSorted((a, b) => a - b),
      Array.from({ length }, (_, i) => i + 2),
    );
    const sizes = sets.map((set) => set.length);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
    for (const set of sets)
      for (const [i, position] of set.slice(1).entries()) assert.equal(position - set[i]!, steps);
  });

test("every order of the places is as likely as the others (chi-square)", () => {
  const counts = new Map<string, number>();
  const draws = 6000;
  for (let i = 0; i < draws; i++) {
    const order = spreadSteps({ seed: i % 2000, sample: Math.floor(i / 2000) }, 3, {
      block: 0,
      start: 5,
      end: 8,
    });
    counts.set(order.join(), (counts.get(order.join()) ?? 0) + 1);
  }
  assert.equal(counts.size, 6);
  const statistic = chiSquare([...counts.values()], new Array<number>(6).fill(draws / 6));
  // 5 degrees of freedom, p = 0.001.
  assert.ok(statistic < 20.52, `chi-square ${statistic}`);
});

test("blocks are spread one by one, each in an order of its own", () => {
  const sets = reveals({ length: 64, steps: 16, seed: 1, blockLength: 32 });
  const [left, right] = [sets.slice(0, 8), sets.slice(8)];
  assert.ok(left.flat().every((position) => position < 34));
  for (const set of [...left, ...right]) assert.equal(set[3]! - set[0]!, 24);
  const places = (half: number[][]) => half.map(([first]) => (first! - 2) % 8).join();
  assert.notEqual(places(left), places(right));
});

test("positions that were masked again are drawn in the next step", () => {
  const remask = { mode: "random" as const, rate: 0.3, from: 0, to: 1 };
  const { steps } = drive({ ...base, length: 40, steps: 10, seed: 2, remask }, 4, uniform);
  let again = 0;
  for (const [k, { remasked }] of steps.slice(0, -1).entries())
    for (const position of remasked!) {
      again++;
      assert.ok(steps[k + 1]!.revealed.some((reveal) => reveal.position === position));
    }
  assert.ok(again > 20, `${again} were masked again`);
});

test("the candidates of a guided step reveal the same positions", () => {
  const guidance = { candidates: 3, scaleStart: 0, scaleEnd: 0, rerankRatio: 1 };
  const params = { ...base, length: 24, steps: 6, seed: 4, guidance };
  const [first, ...others] = toySample(params, 4).plan().candidates;
  assert.equal(others.length, 2);
  for (const other of others) {
    assert.deepEqual(other.positions, first!.positions);
    assert.notDeepEqual(other.uniforms, first!.uniforms);
  }
  const { steps } = drive(params, 4, uniform, { reward: (canvas) => canvas[5]!, tilt: (p) => p });
  assert.deepEqual(
    steps.map(({ revealed }) => revealed.length),
    [4, 4, 4, 4, 4, 4],
  );
});
