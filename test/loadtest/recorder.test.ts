import assert from "node:assert/strict";
import { test } from "node:test";
import { spread, summarise } from "../../loadtest/report/summary.ts";
import type { Measurement } from "../../loadtest/report/types.ts";
import { Durations, Recorder } from "../../loadtest/traffic/recorder.ts";

/** Assert equality to three significant digits. */
const near = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) <= expected / 1000, `${actual} is not near ${expected}`);

test("the quantiles of 1 to 1000 ms, in any order, are their ranks", () => {
  const durations = new Durations();
  for (let i = 0; i < 1000; i++) durations.record(((i * 377) % 1000) + 1);
  const quantiles = durations.quantiles()!;
  assert.equal(quantiles.count, 1000);
  near(quantiles.p50, 500);
  near(quantiles.p90, 900);
  near(quantiles.p99, 990);
  near(quantiles.max, 1000);
  near(quantiles.mean, 500.5);
});

test("a histogram has three significant digits from 0.1 ms to an hour", () => {
  for (const ms of [0.1, 7.77, 1234, 3_600_000]) {
    const durations = new Durations();
    durations.record(ms);
    near(durations.quantiles()!.p50, ms);
  }
});

test("merged histograms equal the histogram of all values", () => {
  const [low, high] = [new Durations(), new Durations()];
  for (let i = 1; i <= 99; i++) low.record(i);
  high.record(10_000);
  low.add(high);
  const quantiles = low.quantiles()!;
  assert.equal(quantiles.count, 100);
  near(quantiles.p99, 99);
  near(quantiles.max, 10_000);
});

test("an empty histogram has no quantiles", () => {
  assert.equal(new Durations().quantiles(), undefined);
});

test("errors are counted by kind, and have no latency", () => {
  const recorder = new Recorder();
  const shape = { name: "a", weight: 1, length: 8, steps: 2 };
  recorder.success(shape, 10, {
    tokens: 8,
    passes: { student: 2, discriminator: 1, gradient: 0 },
    queueMs: 3,
  });
  recorder.success({ ...shape, name: "b" }, 30, {
    tokens: 4,
    firstStepMs: 5,
    gapsMs: [1, 2],
    mergedSteps: 1,
  });
  recorder.failure("timeout");
  recorder.failure("timeout");
  recorder.failure("wrong length");
  assert.deepEqual(recorder.errors, { timeout: 2, "wrong length": 1 });
  assert.equal(recorder.failures, 3);
  assert.deepEqual([recorder.requests, recorder.tokens, recorder.mergedSteps], [2, 12, 1]);
  assert.deepEqual(recorder.passes, { student: 2, discriminator: 1, gradient: 0 });
  const { latency, queue, first_step, step_gap, send_lag } = recorder.times.times();
  assert.deepEqual(
    [latency, queue, first_step, step_gap, send_lag].map((quantiles) => quantiles?.count),
    [2, 1, 1, 2, undefined],
  );
  assert.deepEqual(
    [...recorder.shapes].map(([name, times]) => [name, times.times().latency!.count]),
    [
      ["a", 1],
      ["b", 1],
    ],
  );
});

test("a summary has the median and the range of the repeats, and the latencies of all of them", () => {
  const all = new Recorder();
  const measurements = [30, 10, 20].map((rate, repeat): Measurement => {
    const recorder = new Recorder();
    recorder.success({ name: "a", weight: 1, length: 8 }, rate, { tokens: 8 });
    all.add(recorder);
    return {
      ...{ repeat, started_s: repeat, seconds: 1, requests: 1, tokens: 8, requests_per_second: 1 },
      ...{ tokens_per_second: rate, times_ms: recorder.times.times(), errors: {}, machine_speed: 1 },
    };
  });
  const summary = summarise(measurements, all);
  assert.deepEqual(summary.figures.tokens_per_second, { median: 20, lowest: 10, highest: 30 });
  assert.equal(summary.figures.batch_rows, undefined);
  assert.equal(summary.times_ms.latency!.count, 3);
  near(summary.times_ms.latency!.max, 30);
  assert.deepEqual(spread([4, 1]), { median: 2.5, lowest: 1, highest: 4 });
  assert.throws(() => spread([]), RangeError);
});
