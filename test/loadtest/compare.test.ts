import assert from "node:assert/strict";
import { test } from "node:test";
import { compare, describe, gate } from "../../loadtest/report/compare.ts";
import { ratioOf, studentQuantile } from "../../loadtest/traffic/statistics.ts";
import { closed, measured, resultsOf } from "./support.ts";

const near = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual / expected - 1) < 1e-6, `${actual} is not ${expected}`);

test("a ratio has Welch's interval on logarithms, compared with a manual calculation", () => {
  // Logs of A: 0, 1, 2; of B: 3, 4, 5. Variance 1 each, so error = sqrt(2/3), 4 degrees of freedom, t =
  // 2.776445105.
  const e = Math.E;
  const { ratio, interval } = ratioOf([1, e, e ** 2], [e ** 3, e ** 4, e ** 5]);
  near(ratio, e ** 3);
  const margin = 2.7764451051977987 * Math.sqrt(2 / 3);
  near(interval![0], Math.exp(3 - margin));
  near(interval![1], Math.exp(3 + margin));
});

test("Student's quantiles are those of the tables", () => {
  for (const [freedom, t] of [
    [1, 12.70620474],
    [2, 4.30265273],
    [4, 2.77644511],
    [10, 2.22813885],
    [100, 1.98397152],
  ] as const)
    assert.ok(Math.abs(studentQuantile(freedom) / t - 1) < 1e-5, `${studentQuantile(freedom)} is not ${t}`);
});

test("one repeat, or a value of 0, has no interval", () => {
  const once = ratioOf([2], [3, 3]);
  near(once.ratio, 1.5);
  assert.equal(once.interval, undefined);
  assert.deepEqual(ratioOf([2, 2], [0, 4]), { ratio: 1 });
});

const BEFORE = [1000, 1010, 990];

test("compare reports better, worse and within noise, and cells in one result only", () => {
  const a = resultsOf([
    measured(closed(4), BEFORE),
    measured(closed(8), BEFORE),
    measured(closed(16), BEFORE),
    measured(closed(32), BEFORE),
  ]);
  const b = resultsOf([
    measured(closed(4), [2000, 2020, 1980]),
    measured(closed(8), [500, 505, 495]),
    measured(closed(16), [900, 1100, 1020]),
    measured(closed(64), BEFORE),
  ]);
  const comparison = compare(a, b);
  const verdicts = (figure: string) =>
    comparison.differences.filter((d) => d.figure === figure).map(({ verdict }) => verdict);
  assert.deepEqual(verdicts("tokens_per_second"), ["better", "worse", "noise"]);
  assert.deepEqual(verdicts("latency_p50_ms"), ["better", "worse", "noise"]);
  near(comparison.differences[0]!.ratio, 2);
  assert.deepEqual(comparison.onlyA, [closed(32).id]);
  assert.deepEqual(comparison.onlyB, [closed(64).id]);
  const text = describe(comparison);
  assert.match(text, /4 steps, 128 tokens +tokens\/s +1000 +2000 +2\.00 \(\d.*\) +better/);
  assert.match(text, /within noise/);
});

test("compare warns if the speed of the machine differed", () => {
  const slower = measured(closed(4), BEFORE);
  for (const measurement of slower.measurements) measurement.machine_speed = 500;
  const text = describe(compare(resultsOf([measured(closed(4), BEFORE)]), resultsOf([slower])));
  assert.match(text, /machine speed in B \/ in A: 0\.500/);
  assert.match(text, /speed of the machine differed/);
});

test("compare explains why no cell is in both results", () => {
  const of = (...cells: ReturnType<typeof closed>[]) =>
    resultsOf(cells.map((cell) => measured(cell, BEFORE)));
  const text = describe(compare(of(closed(4, 1), closed(8, 1)), of(closed(16, 1), closed(16, 8))));
  assert.match(
    text,
    /^no cell is in both results:\n {2}shapes: A has 4 steps, .*; 8 steps, .*, B has 16 steps/,
  );
  assert.doesNotMatch(text, /clients: A/);
  assert.match(describe(compare(of(closed(4, 1)), of(closed(4, 8)))), /clients: A has 1, B has 8/);
  assert.match(describe(compare(resultsOf([]), of(closed(4)))), /A has no cells of a closed loop/);
  assert.match(
    describe(compare(of(closed(4, 1), closed(8, 8)), of(closed(4, 8), closed(8, 1)))),
    /overlap, but not in the same cell/,
  );
});

test("the gate fails only on losses beyond noise and tolerance, new errors and missing cells", () => {
  const baseline = resultsOf([measured(closed(4), BEFORE)]);
  const held = (rates: number[], errors = {}) =>
    gate(resultsOf([measured(closed(4), rates, errors)]), baseline, 0.05);
  assert.equal(held(BEFORE).passed, true);
  assert.equal(held([2000, 2010, 1990]).passed, true, "better is no regression");
  assert.equal(held([700, 1100, 1000]).passed, true, "within noise");
  assert.equal(held([970, 971, 969]).passed, true, "within the tolerance");
  const lost = held([500, 505, 495]);
  assert.equal(lost.passed, false);
  assert.deepEqual(
    lost.regressions.map(({ figure }) => figure),
    ["tokens_per_second", "latency_p50_ms", "latency_p99_ms"],
  );
  const failing = held(BEFORE, { timeout: 1 });
  assert.equal(failing.passed, false);
  assert.match(failing.faults[0]!, /1 x timeout/);
  assert.match(gate(resultsOf([]), baseline, 0.05).faults[0]!, /not in the results/);
});
