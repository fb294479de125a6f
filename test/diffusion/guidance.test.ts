import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseCandidate, type Guidance, stepKind, tiltScale } from "../../src/diffusion/guidance.ts";
import { LOG_LINEAR, stayProbability } from "../../src/diffusion/schedule.ts";
import { chiSquare, drive, softmax, type ToyDenoiser, type ToyDiscriminator, toySample } from "./toy.ts";

const PUBLISHED: Guidance = { candidates: 4, scaleStart: 30, scaleEnd: 40, rerankRatio: 0.5 };
const base = { prompt: [], sample: 0, temperature: 1, topK: 0, topP: 1, order: "random" as const };
const MASK = 3;

const denoise: ToyDenoiser = (canvas, position) => {
  const other = canvas[1 - position]!;
  return other === MASK ? softmax([0.2 + position, 1.1, 0.4]) : softmax([other, 1.5 - other, 0.4 * position]);
};
const discriminator: ToyDiscriminator = {
  reward: ([a, b]) => 0.8 * a! - 0.3 * b! + (a === b ? 0.7 : 0),
  tilt: (p, canvas, position, scale) =>
    softmax(p.map((q, token) => Math.log(q) + scale * (token - 1) * (1 + position + canvas[1 - position]!))),
};

test("early steps tilt, late steps re-rank, and the clean-up pass is plain", () => {
  const kinds = (steps: number, guidance: Guidance | undefined = PUBLISHED) =>
    Array.from({ length: steps + 1 }, (_, step) => stepKind(guidance, step, steps)[0]).join("");
  assert.deepEqual(
    [1, 2, 3, 8].map((steps) => kinds(steps)),
    ["rp", "trp", "trrp", "ttttrrrrp"],
  );
  assert.equal(kinds(4, { ...PUBLISHED, rerankRatio: 0 }), "ttttp");
  assert.equal(kinds(4, { ...PUBLISHED, rerankRatio: 1 }), "rrrrp");
  assert.equal(Array.from({ length: 3 }, (_, step) => stepKind(undefined, step, 2)[0]).join(""), "ppp");
});

test("the scale goes from h0 to h1 over the tilted steps", () => {
  const scales = (steps: number, count: number) =>
    Array.from({ length: count }, (_, step) => tiltScale(PUBLISHED, step, steps));
  assert.deepEqual(scales(6, 3), [30, 35, 40]);
  assert.deepEqual(scales(2, 1), [30]);
});

test("a candidate is chosen with probability softmax(rewards), for rewards of any size", () => {
  for (const rewards of [
    [0.3, -1, 2.1],
    [1000.3, 999, 1002.1],
  ]) {
    const counts = [0, 0, 0];
    const draws = 10_000;
    for (let i = 0; i < draws; i++) counts[chooseCandidate(rewards, (i + 0.5) / draws)]!++;
    for (const [i, p] of softmax([0.3, -1, 2.1]).entries())
      assert.ok(Math.abs(counts[i]! / draws - p) < 2e-4);
  }
  assert.equal(chooseCandidate([-1e4, 0, -1e4], 1 - 2 ** -24), 1);
  assert.equal(chooseCandidate([5], 2 ** -24), 0);
});

/** Exact distribution of two-position canvases after one step that re-ranks, then a plain clean-up. */
function rerankedDistribution(candidates: number): Map<string, number> {
  const stay = stayProbability(LOG_LINEAR, 1, 0);
  const single = new Map<string, number>();
  const add = (map: Map<string, number>, key: string, weight: number) =>
    map.set(key, (map.get(key) ?? 0) + weight);
  const start = Int32Array.of(MASK, MASK);
  const p = [0, 1].map((position) => denoise(start, position));
  for (let a = 0; a <= MASK; a++)
    for (let b = 0; b <= MASK; b++) {
      const weight = (token: number, position: number) =>
        token === MASK ? stay : (1 - stay) * p[position]![token]!;
      add(single, `${a},${b}`, weight(a, 0) * weight(b, 1));
    }
  const chosen = new Map<string, number>();
  const walk = (picked: string[], weight: number) => {
    if (picked.length < candidates) {
      for (const [key, w] of single) walk([...picked, key], weight * w);
      return;
    }
    const shares = softmax(
      picked.map((key) => discriminator.reward(Int32Array.from(key.split(","), Number))),
    );
    for (const [i, key] of picked.entries()) add(chosen, key, weight * shares[i]!);
  };
  walk([], 1);
  return chosen;
}

test("a re-ranked step has the exact distribution (chi-square)", () => {
  const exact = rerankedDistribution(3);
  const keys = [...exact.keys()].filter((key) => !key.includes(`${MASK}`)).sort();
  assert.equal(keys.length, 9);
  const draws = 20_000;
  const counts = new Map<string, number>();
  const guidance = { ...PUBLISHED, candidates: 3, rerankRatio: 1 };
  for (let seed = 0; seed < draws; seed++) {
    const params = { ...base, length: 2, steps: 1, seed, guidance };
    const key = drive(params, MASK, denoise, discriminator).tokens.join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const statistic = chiSquare(
    keys.map((key) => counts.get(key) ?? 0),
    keys.map((key) => exact.get(key)! * draws),
  );
  // 8 degrees of freedom, p = 0.001; a position stays masked with probability 1e-5, which is neglected.
  assert.ok(statistic < 26.12, `chi-square ${statistic}`);
});

test("tilted steps draw from the tilted distribution (chi-square)", () => {
  const guidance = { ...PUBLISHED, scaleStart: 0.3, scaleEnd: 0.6, rerankRatio: 0 };
  const draws = 20_000;
  const counts = [0, 0, 0];
  for (let seed = 0; seed < draws; seed++) {
    // A single position, so that every sample is one draw at one of two scales.
    const { tokens } = drive(
      { ...base, prompt: [1], length: 1, steps: 2, seed, guidance },
      MASK,
      denoise,
      discriminator,
    );
    counts[tokens[1]!]!++;
  }
  const canvas = Int32Array.of(1, MASK);
  const p = denoise(canvas, 1);
  const [stay] = [stayProbability(LOG_LINEAR, 2, 0)];
  const [first, second] = [0.3, 0.6].map((scale) => discriminator.tilt(p, canvas, 1, scale));
  const expected = [0, 1, 2].map((token) => draws * ((1 - stay) * first![token]! + stay * second![token]!));
  assert.ok(chiSquare(counts, expected) < 13.82, "2 degrees of freedom, p = 0.001");
});

test("steps record their rewards and choice, and passes are counted by network", () => {
  const guidance = { ...PUBLISHED, scaleStart: 0.1, scaleEnd: 0.1 };
  for (let seed = 0; seed < 50; seed++) {
    const { steps, passes } = drive(
      { ...base, length: 2, steps: 6, seed, guidance },
      MASK,
      denoise,
      discriminator,
    );
    const count = { student: 0, discriminator: 0, gradient: 0 };
    for (const step of steps) {
      // A re-ranked step may choose a candidate that reveals nothing.
      const ran = step.revealed.length > 0 || step.rewards.length > 0;
      if (!ran) continue;
      count.student++;
      count.discriminator += step.rewards.length;
      if (step.kind === "tilt") count.gradient++;
      assert.equal(step.rewards.length, { plain: 0, tilt: 1, rerank: 4, smc: 0 }[step.kind]);
      assert.equal(step.chosen === undefined, step.kind !== "rerank");
    }
    assert.deepEqual(passes, count);
  }
});

test("a mask drawn in a guided step leaves its position masked, and is refused in a plain one", () => {
  const guidance = { ...PUBLISHED, rerankRatio: 0 };
  const guided = toySample({ ...base, length: 3, steps: 1, seed: 0, guidance }, MASK);
  const tokens = [0, MASK, 2];
  const record = guided.apply(guided.plan(), [{ tokens, logprobs: [0, 0, 0], entropies: [0, 0, 0] }], [1]);
  assert.deepEqual([record.revealed.map(({ position }) => position), record.masked], [[0, 2], 1]);
  assert.equal(guided.plan().kind, "plain");
  assert.throws(
    () => guided.apply(guided.plan(), [{ tokens: [MASK], logprobs: [0], entropies: [0] }]),
    RangeError,
  );
  guided.apply(guided.plan(), [{ tokens: [1], logprobs: [0], entropies: [0] }]);
  assert.ok(guided.done);
});
