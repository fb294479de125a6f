/** Which models make room, and when. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type LoadedModel, makeRoom } from "../../../src/engine/models/room.ts";

interface Named extends LoadedModel {
  name: string;
}

const NOW = 10_000;

/** Return an idle model that has been loaded for long, with other properties. */
const model = (name: string, others: Partial<LoadedModel> = {}): Named => ({
  ...{ name, uses: 0, usedAt: 0, keptUntil: 0, closing: false },
  ...others,
});

const closingOf = (loaded: Named[], count: number) =>
  [...makeRoom(loaded, count, NOW).closing].map(({ name }) => name);

test("idle models make room first, then those that close already, the least recently used first", () => {
  const loaded = [
    model("busy, used early", { uses: 1, usedAt: 10 }),
    model("busy, used late", { uses: 1, usedAt: 20 }),
    model("closing", { uses: 1, usedAt: 30, closing: true }),
    model("idle, used late", { usedAt: 50 }),
    model("idle, used early", { usedAt: 40 }),
  ];
  const order = ["idle, used early", "idle, used late", "closing", "busy, used early", "busy, used late"];
  for (let count = 0; count <= order.length + 1; count++)
    assert.deepEqual(closingOf(loaded, count), order.slice(0, count));
  assert.deepEqual(closingOf(loaded, -1), []);
});

test("an idle model stays for a moment after its last use, at most as long as one in use", () => {
  const used = model("used", { usedAt: NOW - 40, keptUntil: NOW + 30 });
  assert.deepEqual(makeRoom([used], 1, NOW), { closing: new Set(), nextAt: NOW + 30 });
  used.keptUntil = NOW + 5000;
  assert.deepEqual(makeRoom([used], 1, NOW), { closing: new Set(), nextAt: NOW + 60 });
  assert.deepEqual(makeRoom([used], 1, NOW + 60), {
    closing: new Set([used]),
    nextAt: Number.POSITIVE_INFINITY,
  });
});

test("a model in use stays until its load was worth its time, and no other takes its turn", () => {
  const busy = model("busy", { uses: 2, usedAt: 5, keptUntil: NOW + 70 });
  const later = model("later", { uses: 1, usedAt: 6, keptUntil: NOW + 20 });
  assert.deepEqual(makeRoom([busy, later], 1, NOW), { closing: new Set(), nextAt: NOW + 70 });
  assert.deepEqual(makeRoom([busy, later], 2, NOW + 20), { closing: new Set([later]), nextAt: NOW + 70 });
  assert.deepEqual(makeRoom([busy, later], 0, NOW), {
    closing: new Set(),
    nextAt: Number.POSITIVE_INFINITY,
  });
});
