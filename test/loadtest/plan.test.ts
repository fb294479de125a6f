import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Measurement } from "../../loadtest/report/types.ts";
import { Ladder } from "../../loadtest/sweep/ladder.ts";
import { checkTarget } from "../../loadtest/sweep/loopback.ts";
import { defaultPlan, product, shapeOf } from "../../loadtest/sweep/plan.ts";
import { share } from "../../loadtest/sweep/share.ts";
import { readMix, Seeds, traffic } from "../../loadtest/traffic/traffic.ts";
import { StartupError } from "../../src/errors.ts";
import { scratch } from "../support/scratch.ts";

const root = scratch("plan");

const refused = (run: () => unknown, said: RegExp) =>
  assert.throws(run, (error) => error instanceof StartupError && said.test(error.message));

test("a loopback target is accepted; another host must be named twice", () => {
  for (const url of ["http://127.0.0.1:8080/", "http://127.9.9.9", "http://localhost:1", "http://[::1]:80"])
    assert.equal(checkTarget(url, undefined), url.replace(/\/$/, "").replace(/:80$/, ""));
  for (const url of [
    "http://192.168.0.1:8080",
    "http://example.org",
    "http://127.0.0.1.example.org",
    "http://[::2]",
  ])
    refused(() => checkTarget(url, undefined), /not this machine.*--i-know/);
  refused(() => checkTarget("http://example.org", "example.com"), /--i-know example\.org/);
  assert.equal(checkTarget("http://example.org", "example.org"), "http://example.org");
  for (const url of ["nonsense", "ftp://127.0.0.1", "127.0.0.1:8080"])
    refused(() => checkTarget(url, undefined), /give an address such as/);
});

test("a grid has every combination once, and each cell has its own id", () => {
  const cells = product({
    ...{ steps: [4, 8], clients: [1, 2], lengths: [32, 64], guidance: ["none", "rgas"] },
    ...{ transports: ["post", "sse", "ws"], prompt: "" },
  });
  assert.equal(cells.length, 48);
  assert.equal(new Set(cells.map(({ id }) => id)).size, 48);
});

test("the default plans stay within the model's limits, and repeat no cell", () => {
  for (const quick of [false, true]) {
    const { cells, ladders } = defaultPlan({ guided: true, context: 256 }, quick, true);
    assert.equal(new Set(cells.map(({ id }) => id)).size, cells.length);
    for (const transport of ["post", "sse", "ws"])
      assert.ok(cells.some((cell) => cell.transport === transport));
    assert.ok(cells.some(({ shapes }) => shapes.length > 1));
    assert.ok(ladders.length > 1);
    const small = defaultPlan({ guided: false, context: 16 }, quick, false);
    assert.ok(
      small.cells.every(({ shapes }) => shapes.every((s) => s.length <= 16 && s.guidance !== "rgas")),
    );
    assert.deepEqual(small.ladders, []);
  }
});

test("traffic follows the weights, and uses no seed twice", () => {
  const shapes = [
    { ...shapeOf(4, 8), weight: 3 },
    { ...shapeOf(64, 8), weight: 1 },
  ];
  const seeds = new Seeds(5);
  const asks = traffic(shapes, seeds);
  const taken = Array.from({ length: 400 }, () => asks.next().value);
  assert.equal(taken.filter(({ shape }) => shape === shapes[0]).length, 300);
  assert.ok(
    taken.slice(0, 4).some(({ shape }) => shape === shapes[1]),
    "few requests have the mix of many",
  );
  assert.equal(new Set(taken.map(({ seed }) => seed)).size, 400);
  assert.equal(seeds.used, 400);
});

test("a file of mixed traffic is read, or refused with the wrong field", () => {
  const file = join(root, "mix.json");
  const write = (value: unknown) => writeFileSync(file, JSON.stringify(value));
  write([
    { steps: 4, length: 8 },
    { name: "long", steps: 64, length: 8, weight: 0.5, guidance: "rgas" },
  ]);
  assert.deepEqual(
    readMix(file).map(({ name, weight, guidance }) => [name, weight, guidance]),
    [
      ["4 steps, 8 tokens", 1, "none"],
      ["long", 0.5, "rgas"],
    ],
  );
  write([{ steps: 0, length: 8 }]);
  refused(() => readMix(file), /\/0\/steps/);
  write([
    { steps: 4, length: 8 },
    { steps: 4, length: 8 },
  ]);
  refused(() => readMix(file), /same name/);
  refused(() => readMix(join(root, "none.json")), /no such file/);
});

test("time is divided by weight, except for measurements with a longer minimum", () => {
  const seconds = (total: number, floors: number[], weights = floors.map(() => 1)) => {
    const pending = floors.map((floor, i) => ({ floor, weight: weights[i]! }));
    return share(total, pending);
  };
  assert.ok(Math.abs(seconds(10, [0, 0]) - 5) < 1e-6);
  assert.ok(Math.abs(seconds(10, [0, 8]) - 2) < 1e-6);
  assert.ok(Math.abs(seconds(12, [0, 0], [1, 2]) - 4) < 1e-6);
  assert.ok(seconds(1, [2, 2]) < 1e-6);
});

test("a ladder rises until a rung fails in every repeat; the knee is the highest rung that held", () => {
  const ladder = new Ladder({ shape: shapeOf(4, 8), transport: "post" }, 100);
  ladder.begin(80);
  const climb = (repeat: number, breaksAt: number) => {
    const rates: number[] = [];
    for (let index = 0; ladder.has(index, repeat); index++) {
      const { rate } = ladder.rungs[index]!;
      rates.push(rate);
      const p99 = rate >= breaksAt ? 500 : 50;
      const latency = { count: 1, mean: p99, p50: p99, p90: p99, p99, max: p99 };
      ladder.take(index, { repeat, kept_up: true, times_ms: { latency } } as Measurement);
    }
    return rates;
  };
  assert.deepEqual(climb(0, 70), [40, 50, 62.5, 78.1]);
  assert.deepEqual(climb(1, 60), [40, 50, 62.5, 78.1], "every repeat tries the same rates");
  assert.deepEqual(climb(2, 90), [40, 50, 62.5, 78.1, 97.6], "and goes on where the last one held");
  const knee = ladder.knee()!;
  assert.deepEqual(knee.repeats, [62.5, 50, 78.1]);
  assert.deepEqual(knee.requests_per_second, { median: 62.5, lowest: 50, highest: 78.1 });
  assert.equal(knee.reached, true);
});

test("a ladder with given rates tries only those", () => {
  const ladder = new Ladder({ shape: shapeOf(4, 8), transport: "ws", rates: [1, 2] }, 100);
  ladder.begin(0);
  assert.deepEqual(
    ladder.rungs.map(({ rate }) => rate),
    [1, 2],
  );
  assert.equal(ladder.has(2, 0), false);
  assert.equal(ladder.knee(), undefined);
});
