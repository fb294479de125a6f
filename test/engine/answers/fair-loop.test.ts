/** Work in slices of the event loop. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FairLoop } from "../../../src/engine/answers/fair-loop.ts";

/**
 * A clock that each piece of work moves by a millisecond, and the pieces done in each turn of the event loop.
 */
function counted(turns: { now: number }, done: string[], name: string, pieces: number) {
  return () => {
    turns.now++;
    done.push(name);
    return --pieces > 0;
  };
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

test("a little work is done at once", () => {
  const clock = { now: 0 };
  const done: string[] = [];
  new FairLoop(() => clock.now).run(counted(clock, done, "a", 3));
  assert.deepEqual(done, ["a", "a", "a"]);
});

test("however many have work, a turn holds one slice, and they take it in rotation", async () => {
  const clock = { now: 0 };
  const done: string[] = [];
  const turns = new FairLoop(() => clock.now);
  for (const name of "abcdefghij") turns.run(counted(clock, done, name, 5));
  const sizes = [done.length];
  while (done.length < 50) {
    await nextTurn();
    sizes.push(done.length - sizes.reduce((a, b) => a + b));
  }
  assert.ok(
    sizes.every((size) => size <= 4),
    sizes.join(),
  );
  // The first had the turn to itself; after it, each has one piece before any has two.
  assert.deepEqual(done.slice(0, 13).join(""), "aaaabcdefghij".slice(0, 4) + done.slice(4, 13).join(""));
  assert.equal(new Set(done.slice(4, 14)).size, 10);
});

test("work that starts other work does not run it inside itself", () => {
  const order: string[] = [];
  const turns = new FairLoop(() => 0);
  turns.run(() => {
    turns.run(() => {
      order.push("inner");
      return false;
    });
    order.push("outer");
    return false;
  });
  assert.deepEqual(order, ["outer", "inner"]);
});
