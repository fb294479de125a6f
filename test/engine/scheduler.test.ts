import assert from "node:assert/strict";
import { test } from "node:test";
import { paddedLength, schedule } from "../../src/engine/scheduler.ts";

const row = (name: string, padded: number, attained: number, graph = "denoise", width = 1) => ({
  name,
  padded,
  attained,
  graph,
  width,
  urgent: false,
});
const names = (rows: { name: string }[]) => rows.map(({ name }) => name).join("");

test("the least served row goes first and takes rows of its own padded length along", () => {
  const rows = [row("a", 64, 640), row("b", 96, 96), row("c", 96, 0), row("d", 64, 32), row("e", 96, 192)];
  assert.equal(names(schedule(rows, { maxTokens: 10_000 })), "cbe");
  assert.equal(names(schedule(rows.toReversed(), { maxTokens: 10_000 })), "cbe");
});

test("a call stays within its bound of padded tokens, but one row always runs", () => {
  const rows = [row("a", 64, 3), row("b", 64, 1), row("c", 64, 2)];
  assert.equal(names(schedule(rows, { maxTokens: 128 })), "bc");
  assert.equal(names(schedule(rows, { maxTokens: 1 })), "b");
});

test("rows of one call share a graph, and a row may take several canvases", () => {
  const rows = [row("a", 64, 0, "score", 4), row("b", 64, 1), row("c", 64, 2, "score", 4), row("d", 64, 3)];
  assert.equal(names(schedule(rows, { maxTokens: 10_000 })), "ac");
  assert.equal(names(schedule(rows, { maxTokens: 7 * 64 })), "a");
  assert.equal(names(schedule(rows.slice(1), { maxTokens: 10_000 })), "bd");
});

test("an urgent row goes first, whatever it has had", () => {
  const rows = [row("a", 64, 0), { ...row("b", 64, 900), urgent: true }, row("c", 32, 1)];
  assert.equal(names(schedule(rows, { maxTokens: 64 })), "b");
  assert.equal(names(schedule(rows, { maxTokens: 10_000 })), "ba");
});

test("nothing to do is an empty call, and the rows are left as they were", () => {
  assert.deepEqual(schedule([], { maxTokens: 1 }), []);
  const rows = Object.freeze([row("a", 32, 2), row("b", 32, 1)]);
  schedule(rows, { maxTokens: 64 });
  assert.equal(names([...rows]), "ab");
});

test("no row starves: served in turns, all get the same", () => {
  const rows = ["a", "b", "c"].map((name, i) => ({
    name,
    padded: i === 0 ? 256 : 32,
    attained: 0,
    graph: "denoise",
    width: 1,
    urgent: false,
    calls: 0,
  }));
  for (let i = 0; i < 900; i++)
    for (const chosen of schedule(rows, { maxTokens: 32 })) {
      chosen.attained += chosen.padded;
      chosen.calls++;
    }
  const served = rows.map(({ attained }) => attained);
  assert.ok(Math.max(...served) - Math.min(...served) <= 256, served.join());
});

test("the padded length rounds up within the context", () => {
  assert.deepEqual(
    [1, 32, 33, 250, 256].map((length) => paddedLength(length, 256)),
    [32, 32, 64, 256, 256],
  );
  assert.equal(paddedLength(99, 100), 100);
});
