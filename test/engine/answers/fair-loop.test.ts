/** Work in slices of the event loop. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FairLoop } from "../../../src/engine/answers/fair-loop.ts";

/**
 * Return work of `pieces` pieces. Each advances the clock by 1 ms and adds `name` to `done`.
 */
function counted(turns: { now: number }, done: string[], name: string, pieces: number) {
  return () => {
    turns.now++;
    done.push(name);
    return --pieces > 0;
  };
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve));

test("little work is done at once", () => {
  const clock = { now: 0 };
  const done: string[] = [];
  new FairLoop(() => clock.now).run(counted(clock, done, "a", 3));
  assert.deepEqual(done, ["a", "a", "a"]);
});

test("a turn runs one slice, shared in rotation among all owners", async () => {
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
  // The first owner had the first slice to itself; then each gets one piece before any gets two.
  assert.deepEqual(done.slice(0, 13).join(""), "aaaabcdefghij".slice(0, 4) + done.slice(4, 13).join(""));
  assert.equal(new Set(done.slice(4, 14)).size, 10);
});

test("work started by other work does not run inside it", () => {
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

test("no two callers get the same turn", async () => {
  const loop = new FairLoop();
  let turn = 0;
  const count = () => {
    turn++;
    if (turn < 20) setImmediate(count);
  };
  setImmediate(count);
  const got = await Promise.all(Array.from({ length: 5 }, () => loop.turn().then(() => turn)));
  assert.equal(new Set(got).size, 5, got.join());
});
