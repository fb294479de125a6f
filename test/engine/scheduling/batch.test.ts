import assert from "node:assert/strict";
import { test } from "node:test";
import type { StepPlan } from "../../../src/diffusion/step.ts";
import {
  type DrawRow,
  denoiseInput,
  drawOrder,
  type RowDraws,
  scoreInput,
  splitDraws,
  splitRewards,
  tiltInput,
} from "../../../src/engine/scheduling/batch.ts";
import { NonFiniteError } from "../../../src/errors.ts";
import { openModel } from "../../../src/model/model.ts";
import { rowsOf } from "../../runtime/rows.ts";
import { MODEL } from "../../support/engine.ts";

for (const field of ["logprob", "entropy"] as const)
  test(`a row whose ${field} is not finite has an error, and the other row has its draws`, async () => {
    const rows = rowsOf(await openModel(MODEL), 2);
    const input = denoiseInput(rows);
    const result = {
      token: new Int32Array(input.draws.length).fill(5),
      logprob: new Float32Array(input.draws.length).fill(-1),
      entropy: new Float32Array(input.picks.length / 2).fill(2),
      topToken: new Int32Array(),
      topLogprob: new Float32Array(),
      milliseconds: 1,
    };
    result[field][result[field].length - 1] = Number.NaN;
    const [first, second] = splitDraws(rows, input, result);
    assert.ok(second instanceof NonFiniteError);
    assert.match(second.message, field === "entropy" ? /entropy/ : /log-probability/);
    assert.ok(first && !(first instanceof Error));
    assert.equal(first.entropy, 2);
    assert.equal(first.candidates[0]!.tokens.length, rows[0]!.plan.candidates[0]!.positions.length);
  });

const SCHEDULE = { alphaMin: 1e-3, tMin: 1e-5 };

/** Return a row on `tokens`, padded to 4, with one draw of uniform 0.5 for each position of each candidate. */
function rowOn(tokens: number[], candidates: number[][], plan: Partial<StepPlan> = {}, params = {}): DrawRow {
  const drawn = candidates.map((positions) => ({ positions, uniforms: positions.map(() => 0.5) }));
  const draw = { temperature: 1, topK: 0, topP: 1, ...params };
  return {
    padded: 4,
    plan: { kind: "plain", step: 0, t: 1, stay: 0.75, candidates: drawn, remasked: [], scale: 0, ...plan },
    sample: { canvas: { tokens: Int32Array.from(tokens) }, params: draw, schedule: SCHEDULE },
  };
}

test("equal canvases of first steps are one canvas of a batch, and share the positions they draw", () => {
  const rows = [
    rowOn([9, 9, 9], [[0, 2]], {}, { temperature: 0.5, topK: 3, topP: 0.9 }),
    rowOn([9, 9, 9, 9], [[1]]),
    rowOn([9, 9, 9], [[2]]),
  ];
  const ordered = drawOrder(rows);
  assert.deepEqual(ordered, [rows[0], rows[2], rows[1]]);
  const input = denoiseInput(ordered);
  assert.equal(input.rows, 2);
  assert.deepEqual([...input.tokens], [9, 9, 9, 0, 9, 9, 9, 9]);
  assert.deepEqual([...input.length], [3, 4]);
  assert.deepEqual([...input.picks], [0, 0, 0, 2, 1, 1]);
  assert.deepEqual([...input.draws], [0, 1, 1, 2]);
  assert.deepEqual([...input.temperature], [0.5, 0.5, 1, 1]);
  assert.deepEqual([...input.topK], [3, 3, 0, 0]);
  assert.deepEqual(
    [...input.topP].map((p) => Math.fround(p)),
    [0.9, 0.9, 1, 1].map(Math.fround),
  );
  assert.deepEqual([...input.sigma], [0, 0]);
  assert.deepEqual([...input.maskBias], [-1e9, -1e9]);
});

test("rows share no canvas after the first step, in other conditions, or if a step tilts", () => {
  const guided = { kind: "rerank", t: 0.5 } as const;
  const cases: [string, Partial<StepPlan>, Partial<StepPlan>, number][] = [
    ["first steps", {}, {}, 1],
    ["a later step", { step: 1 }, { step: 1 }, 2],
    ["guided and plain", guided, {}, 2],
    ["two guided", guided, guided, 1],
    ["tilted", { kind: "tilt" }, { kind: "tilt" }, 2],
    ["particles", { kind: "smc", t: 0.5 }, {}, 1],
  ];
  for (const [name, first, second, canvases] of cases) {
    const rows = drawOrder([rowOn([9, 9], [[0]], first), rowOn([9, 9], [[0]], second)]);
    assert.equal(denoiseInput(rows).rows, canvases, name);
  }
});

test("a guided row has the noise level of its time, and the mask as likely as to stay masked", () => {
  const rows = [rowOn([9, 9], [[0], [0, 1]], { kind: "tilt", t: 0.5, stay: 0.25, scale: 3 })];
  const input = tiltInput(rows);
  const [sigma] = input.sigma;
  assert.ok(Math.abs(sigma! - -Math.log(1 - 0.999 * 0.5)) < 1e-6);
  assert.ok(Math.abs(input.maskBias[0]! - Math.log(0.25)) < 1e-6);
  assert.deepEqual([...input.scale], [3]);
  // Both candidates draw at position 0, where the head runs once.
  assert.deepEqual([...input.picks], [0, 0, 0, 1]);
  assert.deepEqual([...input.draws], [0, 0, 1]);
});

test("canvases are scored at the time at which their step ends", () => {
  const row = (step: number, canvases: number[][]) => ({
    ...rowOn([9, 9], [[0]], { step }),
    sample: { params: { steps: 4 }, schedule: SCHEDULE },
    canvases: canvases.map((tokens) => Int32Array.from(tokens)),
  });
  const input = scoreInput([row(1, [[1, 2], [3]]), row(3, [[4, 5, 6]]), row(4, [[7]])]);
  assert.equal(input.rows, 4);
  assert.deepEqual([...input.tokens], [1, 2, 0, 0, 3, 0, 0, 0, 4, 5, 6, 0, 7, 0, 0, 0]);
  assert.deepEqual([...input.length], [2, 1, 3, 1]);
  // A step from 1 of 4 ends at t = 0.5; the last one, and the clean-up pass after it, at tMin.
  const expected = [0.5 + 0.5e-5, 0.5 + 0.5e-5, 1e-5, 1e-5].map((t) => -Math.log(1 - 0.999 * t));
  for (const [i, sigma] of expected.entries()) assert.ok(Math.abs(input.sigma[i]! - sigma) < 1e-6, `${i}`);
});

/** Return a result of `draws` draws and `picks` picks with `top` alternatives at each. */
function resultOf(draws: number, picks: number, top: [number, number][][] = []) {
  return {
    token: Int32Array.from({ length: draws }, (_, i) => 10 + i),
    logprob: Float32Array.from({ length: draws }, (_, i) => -1 - i),
    entropy: Float32Array.from({ length: picks }, (_, i) => i + 1),
    topToken: Int32Array.from(top.flat(), ([token]) => token),
    topLogprob: Float32Array.from(top.flat(), ([, logprob]) => logprob),
    milliseconds: 1,
  };
}

test("draws are split by row and candidate, with the mean entropy of the row", () => {
  const rows = [rowOn([9, 9, 9], [[0, 1], [1]], { step: 1 }), rowOn([9, 9], [[0]], { step: 1 })];
  const input = denoiseInput(rows);
  const [first, second] = splitDraws(rows, input, resultOf(4, 3));
  assert.ok(!(first instanceof Error) && !(second instanceof Error));
  assert.deepEqual(
    first!.candidates.map(({ tokens }) => Array.from(tokens)),
    [[10, 11], [12]],
  );
  assert.deepEqual(
    first!.candidates.map(({ logprobs }) => Array.from(logprobs)),
    [[-1, -2], [-3]],
  );
  assert.deepEqual(
    first!.candidates.map(({ entropies }) => Array.from(entropies)),
    [[1, 2], [2]],
  );
  assert.ok(Math.abs(first!.entropy - 5 / 3) < 1e-9);
  assert.deepEqual(
    second!.candidates.map(({ tokens }) => Array.from(tokens)),
    [[13]],
  );
  assert.equal(second!.entropy, 3);
  assert.ok(!("top" in first!) && !("margins" in first!.candidates[0]!));
  assert.deepEqual(first!.rewards, []);
});

test("a row gets as many of the most likely tokens as it asks for, best first, and margins", () => {
  const rows = [
    rowOn([9, 9], [[0, 1]], { step: 1 }, { topLogprobs: 1 }),
    rowOn([9, 9], [[1]], { step: 1 }, { order: "margin" }),
  ];
  const input = denoiseInput(rows);
  assert.equal(input.alternatives, 2);
  // As a tilted pass returns them: by another distribution, and with a tie.
  const top: [number, number][][] = [
    [
      [7, -2],
      [8, -1],
    ],
    [
      [6, -1],
      [5, -1],
    ],
    [
      [4, Math.log(0.2)],
      [3, Math.log(0.6)],
    ],
  ];
  const [first, second] = splitDraws(rows, input, resultOf(3, 3, top));
  assert.ok(!(first instanceof Error) && !(second instanceof Error));
  assert.deepEqual(
    [...first!.top!],
    [
      [0, [{ token: 7, logprob: -2 }]],
      [1, [{ token: 6, logprob: -1 }]],
    ],
  );
  assert.deepEqual(
    second!.top!.get(1)!.map(({ token }) => token),
    [3, 4],
  );
  assert.ok(Math.abs(second!.candidates[0]!.margins![0]! - 0.4) < 1e-6);
  const both = [rowOn([9, 9, 9], [[0, 1, 2]], { step: 1 }, { topLogprobs: 2 })];
  top[2] = [
    [2, -1],
    [9, -3],
  ];
  const [row] = splitDraws(both, denoiseInput(both), resultOf(3, 3, top));
  assert.ok(row && !(row instanceof Error));
  assert.deepEqual(
    [...row.top!.values()].map((tokens) => tokens.map(({ token }) => token)),
    [
      [8, 7],
      [5, 6],
      [2, 9],
    ],
  );
});

test("a row has an error if one of its candidates has a number that is not finite", () => {
  const rows = [rowOn([9, 9], [[0], [1]], { kind: "rerank", step: 1 })];
  const result = resultOf(2, 2);
  result.logprob[0] = Number.NEGATIVE_INFINITY;
  assert.ok(splitDraws(rows, denoiseInput(rows), result)[0] instanceof NonFiniteError);
});

test("a reward that is not finite is an error of its row alone", () => {
  const rows = [0, 1].map(() => rowOn([9, 9], [[0]], { kind: "tilt", step: 1 }));
  const drawn = splitDraws(rows, tiltInput(rows), {
    ...resultOf(2, 2),
    reward: Float32Array.of(Number.POSITIVE_INFINITY, 2),
  });
  assert.ok(drawn[0] instanceof NonFiniteError);
  assert.match(drawn[0].message, /reward/);
  assert.deepEqual((drawn[1] as RowDraws).rewards, [2]);
  const scored = [[[1], [2]], [[3]]].map((canvases) => ({
    ...rowOn([9], [[0]]),
    sample: { params: { steps: 4 }, schedule: SCHEDULE },
    canvases: canvases.map((tokens) => Int32Array.from(tokens)),
  }));
  const rewards = splitRewards(scored, { reward: Float32Array.of(1, 2, Number.NaN), milliseconds: 1 });
  assert.deepEqual(rewards[0], [1, 2]);
  assert.ok(rewards[1] instanceof NonFiniteError);
  assert.match(rewards[1].message, /reward/);
});
