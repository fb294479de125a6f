import assert from "node:assert/strict";
import { test } from "node:test";
import { type Sent, Slots } from "../../src/engine/slots.ts";

/** One process; the timers that are set are kept, with their delays. */
function slotsOf(next: () => Sent | undefined) {
  const timers: { what: () => void; milliseconds: number }[] = [];
  const clock = {
    now: () => 5,
    setTimeout(what: () => void, milliseconds: number) {
      timers.push({ what, milliseconds });
      return () => {};
    },
  };
  return { slots: new Slots(1, clock, next), timers };
}

test("the next call is asked for before the end of the one that runs, counted from when the process was free", () => {
  const next: Sent = { expectedMs: 10 };
  const { slots, timers } = slotsOf(() => next);
  const sent: Sent = { expectedMs: 100 };
  slots.begin(sent, 0);
  assert.equal(slots.isFree, false);
  assert.equal(timers[0]!.milliseconds, 80);
  timers[0]!.what();
  slots.end(sent, 90);
  assert.deepEqual([next.since, slots.isFree], [90, false]);
  slots.end(next, 100);
  assert.equal(slots.isFree, true);
});

test("a call that is over before the one it waited behind, which was tried again, leaves the count right", () => {
  const next: Sent = { expectedMs: 10 };
  const { slots, timers } = slotsOf(() => next);
  const sent: Sent = { expectedMs: 10 };
  slots.begin(sent, 0);
  timers[0]!.what();
  slots.end(next, 20);
  assert.equal(slots.isFree, false);
  slots.end(sent, 30);
  assert.equal(slots.isFree, true);
  assert.equal(timers.length, 1);
});
