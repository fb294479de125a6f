import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type BatchLimits,
  paddedLength,
  type SchedulableRow,
  schedule,
  startOf,
  withoutMemory,
} from "../../../src/engine/scheduling/scheduler.ts";
import type { GraphName } from "../../../src/runtime/protocol.ts";

const row = (name: string, padded: number, attained: number, graph: GraphName = "denoise", width = 1) => ({
  name,
  padded,
  attained,
  graph,
  width,
  urgent: false,
  passedOver: 0,
  maxRows: Number.POSITIVE_INFINITY,
});
/** Every row may join a batch, whatever its service. */
const upTo = (maxTokens: number) => ({ maxTokens, lightTokens: maxTokens });
/** Return the batch for one free worker. */
const next = <Row extends SchedulableRow>(rows: readonly Row[], limits: Omit<BatchLimits, "spreadTokens">) =>
  schedule(rows, { ...limits, spreadTokens: 0 }, 1)[0] ?? [];
const names = (rows: { name: string }[]) => rows.map(({ name }) => name).join("");

test("the row with the least service goes first, with rows of its own padded length", () => {
  const rows = [row("a", 64, 640), row("b", 96, 96), row("c", 96, 0), row("d", 64, 32), row("e", 96, 192)];
  assert.equal(names(next(rows, upTo(10_000))), "cbe");
  assert.equal(names(next(rows.toReversed(), upTo(10_000))), "cbe");
});

test("a batch stays within its bound of padded tokens, but one row always runs", () => {
  const rows = [row("a", 64, 3), row("b", 64, 1), row("c", 64, 2)];
  assert.equal(names(next(rows, upTo(128))), "bc");
  assert.equal(names(next(rows, upTo(1))), "b");
});

test("rows of a batch share a graph, and a row may have several canvases", () => {
  const rows = [row("a", 64, 0, "score", 4), row("b", 64, 1), row("c", 64, 2, "score", 4), row("d", 64, 3)];
  assert.equal(names(next(rows, upTo(10_000))), "ac");
  assert.equal(names(next(rows, upTo(7 * 64))), "a");
  assert.equal(names(next(rows.slice(1), upTo(10_000))), "bd");
});

test("an urgent row goes first, whatever its service", () => {
  const rows = [row("a", 64, 0), { ...row("b", 64, 900), urgent: true }, row("c", 32, 1)];
  assert.equal(names(next(rows, upTo(64))), "b");
  assert.equal(names(next(rows, upTo(10_000))), "ba");
});

test("without rows there is no batch, and rows are not modified", () => {
  assert.deepEqual(next([], upTo(1)), []);
  const rows = Object.freeze([row("a", 32, 2), row("b", 32, 1)]);
  next(rows, upTo(64));
  assert.equal(names([...rows]), "ab");
});

test("no row starves: all rows get the same service", () => {
  const rows = [row("a", 256, 0), row("b", 32, 0), row("c", 32, 0)];
  for (let i = 0; i < 900; i++) for (const chosen of next(rows, upTo(32))) chosen.attained += chosen.padded;
  const served = rows.map(({ attained }) => attained);
  assert.ok(Math.max(...served) - Math.min(...served) <= 256, served.join());
});

test("rows with clearly more service join only a light batch", () => {
  const rows = [row("a", 64, 0), row("b", 64, 4 * 64), row("c", 64, 5 * 64), row("d", 64, 6 * 64)];
  assert.equal(names(next(rows, { maxTokens: 1000, lightTokens: 64 })), "ab");
  assert.equal(names(next(rows, { maxTokens: 1000, lightTokens: 3 * 64 })), "abc");
  assert.equal(names(next(rows, { maxTokens: 1000, lightTokens: 1000 })), "abcd");
  assert.equal(names(next(rows.slice(1), { maxTokens: 1000, lightTokens: 64 })), "bcd");
});

test("a row passed over for more than two rounds goes first", () => {
  const rows = [row("a", 64, 0), row("b", 64, 32), { ...row("c", 64, 9000), passedOver: 7 }];
  assert.equal(names(next(rows, { maxTokens: 64, lightTokens: 64 })), "c");
  assert.equal(names(next([...rows, row("d", 64, 1)], { maxTokens: 64, lightTokens: 64 })), "a");
});

test("a short request among long ones ends in a few batches, and a stream of them starves no row", () => {
  const limits = { maxTokens: 4 * 64, lightTokens: 64 };
  type Job = ReturnType<typeof row> & { left: number; came: number };
  let clock = 0;
  let now = 0;
  let rows: Job[] = [];
  const took: number[] = [];
  const admit = (name: string, left: number) =>
    rows.push({ ...row(name, 64, startOf(64, clock)), left, came: now });
  for (let i = 0; i < 8; i++) admit("long", 1000);
  const call = () => {
    const batch = next(rows, limits);
    clock = Math.max(clock, Math.min(...rows.map(({ attained }) => attained)));
    for (const one of rows) one.passedOver++;
    now++;
    for (const one of batch) {
      one.passedOver = 0;
      one.attained += 64;
      if (--one.left === 0 && one.name === "short") took.push(now - one.came);
    }
    rows = rows.filter(({ left }) => left > 0);
  };
  for (let i = 0; i < 50; i++) call();
  admit("short", 4);
  for (let i = 0; i < 10; i++) call();
  assert.deepEqual(took, [4]);
  // From now on a short request always waits.
  const before = rows.map(({ left }) => left);
  for (let i = 0; i < 400; i++) {
    if (rows.length === 8) admit("short", 4);
    call();
  }
  rows
    .filter(({ name }) => name === "long")
    .forEach(({ left }, i) => {
      assert.ok(before[i]! - left >= 20, `${before[i]! - left} steps`);
    });
});

test("the padded length is rounded up, at most to the context", () => {
  assert.deepEqual(
    [1, 32, 33, 250, 256].map((length) => paddedLength(length, 256)),
    [32, 32, 64, 256, 256],
  );
  assert.equal(paddedLength(99, 100), 100);
});

test("beyond 512, an eighth at most is padding, in 8 padded lengths for each doubling", () => {
  const lengths = new Set<number>();
  for (let length = 513; length <= 4096; length++) {
    const padded = paddedLength(length, 4096);
    assert.ok(padded >= length && padded / length <= 1.125, `${length} is padded to ${padded}`);
    assert.equal(paddedLength(padded, 4096), padded);
    lengths.add(padded);
  }
  assert.equal(lengths.size, 3 * 8);
});

test("a batch that did not fit into the memory bounds rows of its length and longer ones", () => {
  const all = { maxTokens: 4096, lightTokens: 4096, spreadTokens: 0 };
  const bounded = withoutMemory(withoutMemory(all, 512, 2048), 512, 4096);
  for (const [padded, rows] of [
    [256, 16],
    [512, 2],
    [1024, 1],
  ] as const) {
    const waiting = Array.from({ length: 20 }, (_, i) => row(`${i}`, padded, 0));
    assert.equal(schedule(waiting, bounded, 1)[0]!.length, rows, `${padded} tokens`);
  }
});

const each = (batches: { name: string }[][]) => batches.map(names);
/** Rows of 64 tokens with equal service. */
const level = (all: string) => [...all].map((name) => row(name, 64, 0));

test("rows that fit into one batch are spread evenly over free workers", () => {
  const limits = { ...upTo(1024), spreadTokens: 0 };
  assert.deepEqual(each(schedule(level("abcdefgh"), limits, 1)), ["abcdefgh"]);
  assert.deepEqual(each(schedule(level("abcdefgh"), limits, 2)), ["abcd", "efgh"]);
  assert.deepEqual(each(schedule(level("abcdefgh"), limits, 3)), ["abc", "de", "fgh"]);
  assert.deepEqual(each(schedule(level("ab"), limits, 4)), ["a", "b"]);
  assert.deepEqual(schedule(level("ab"), limits, 0), []);
});

test("a batch is not spread into parts that would take about as long as the whole", () => {
  const rows = level("abcdefgh");
  assert.deepEqual(each(schedule(rows, { ...upTo(1024), spreadTokens: 256 }, 4)), ["abcd", "efgh"]);
  assert.deepEqual(each(schedule(rows, { ...upTo(1024), spreadTokens: 257 }, 4)), ["abcdefgh"]);
});

test("full batches and those of other lengths get workers before a batch is divided", () => {
  const limits = { ...upTo(256), spreadTokens: 0 };
  assert.deepEqual(each(schedule(level("abcdef"), limits, 2)), ["abcd", "ef"]);
  assert.deepEqual(each(schedule(level("abcdef"), limits, 3)), ["ab", "cd", "ef"]);
  const mixed = [...level("abcd"), row("x", 32, 1), row("y", 32, 2)];
  assert.deepEqual(each(schedule(mixed, limits, 2)), ["abcd", "xy"]);
  assert.deepEqual(each(schedule(mixed, limits, 3)), ["ab", "cd", "xy"]);
});

test("a batch has at most the maxRows of each of its rows", () => {
  const rows = level("abcd").map((one) => ({ ...one, maxRows: 2 }));
  assert.deepEqual(each(schedule(rows, { ...upTo(1024), spreadTokens: 0 }, 1)), ["ab"]);
  assert.deepEqual(each(schedule([...level("xyz"), ...rows], { ...upTo(1024), spreadTokens: 0 }, 1)), [
    "xyz",
  ]);
});
