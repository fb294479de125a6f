/** Bounds on the waiting messages of a socket, and pausing. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Intake } from "../../../src/server/streaming/intake.ts";

/** An intake of 1000 bytes whose messages the test completes one by one. */
function slowIntake() {
  const socket = { isPaused: false, pause: () => {}, resume: () => {} };
  let changes = 0;
  socket.pause = () => {
    if (!socket.isPaused) changes++;
    socket.isPaused = true;
  };
  socket.resume = () => {
    socket.isPaused = false;
    changes++;
  };
  const state = { blocked: false, flooded: 0 };
  const done: string[] = [];
  const steps: (() => void)[] = [];
  const intake = new Intake(socket, {
    maxBytes: 1000,
    receive: async ({ data }) => {
      await new Promise<void>((resolve) => steps.push(resolve));
      done.push(data.toString().slice(0, 3));
    },
    blocked: () => state.blocked,
    flooded: () => state.flooded++,
  });
  const push = (text: string) => intake.push({ data: Buffer.from(text), isBinary: false });
  const finish = async (count: number) => {
    for (let i = 0; i < count; i++) {
      while (steps.length === 0) await nextTurn();
      steps.shift()!();
      await nextTurn();
      await nextTurn();
    }
  };
  return { socket, state, intake, push, finish, done, changes: () => changes };
}

test("messages are handled one after the other, in order", async () => {
  const { push, finish, done } = slowIntake();
  for (let i = 0; i < 20; i++) push(`m${i} `);
  assert.deepEqual(done, []);
  await finish(20);
  assert.deepEqual(
    done,
    Array.from({ length: 20 }, (_, i) => `m${i} `.slice(0, 3)),
  );
});

test("above a number of messages or bytes, the socket is paused until they are handled", async () => {
  for (const [count, text] of [
    [300, "x"],
    [3, "x".repeat(400)],
  ] as const) {
    const { socket, push, finish, changes } = slowIntake();
    for (let i = 0; i < count; i++) push(text);
    assert.ok(socket.isPaused);
    await finish(count - 1);
    assert.ok(socket.isPaused);
    await finish(1);
    assert.ok(!socket.isPaused);
    assert.equal(changes(), 2);
  }
});

test("a socket whose client reads nothing stays paused, even when its messages are handled", async () => {
  const { socket, state, intake, push, finish, done } = slowIntake();
  for (let i = 0; i < 300; i++) push("x");
  state.blocked = true;
  intake.update();
  await finish(1);
  assert.ok(socket.isPaused);
  assert.equal(done.length, 1, "messages went on though their answers have nowhere to go");
  state.blocked = false;
  intake.update();
  await finish(299);
  assert.ok(!socket.isPaused);
});

test("far too many bytes are reported once and discarded", async () => {
  const { socket, state, push, finish, done } = slowIntake();
  for (let i = 0; i < 60; i++) push("x".repeat(100));
  assert.equal(state.flooded, 1);
  assert.ok(socket.isPaused);
  await finish(1);
  assert.equal(done.length, 1);
});
