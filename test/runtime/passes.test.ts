import assert from "node:assert/strict";
import { test } from "node:test";
import type { Pass } from "../../src/runtime/pass.ts";
import { Passes } from "../../src/runtime/passes.ts";
import type { Canvases } from "../../src/runtime/protocol.ts";

/** A pass whose canvases say no more than its number. */
const passOf = (rows: number): Omit<Pass, "id"> => ({
  call: { graph: "score", batch: { rows } as Canvases },
  ...{ attempts: 0, most: 2, doubted: false, everywhere: false, resolve() {}, reject() {} },
});

/** The passes, and what the process is sent. */
function passesOf(count: number) {
  const passes = new Passes();
  for (let rows = 0; rows < count; rows++) passes.add(passOf(rows));
  const send = () => {
    const posted: number[] = [];
    passes.send(({ call }) => posted.push(call.batch.rows));
    return posted;
  };
  return { passes, send };
}

test("a process has the first pass and the one behind it, each sent once", () => {
  const { passes, send } = passesOf(4);
  assert.deepEqual(send(), [0, 1]);
  assert.deepEqual(send(), []);
  passes.shift();
  assert.deepEqual(send(), [2]);
});

test("a new process is sent the pass under which one died alone", () => {
  const { passes, send } = passesOf(2);
  send();
  passes.unsend();
  passes.first!.attempts = 2;
  assert.deepEqual(send(), [0]);
  passes.shift();
  assert.deepEqual(send(), [1]);
});

test("a pass that is put before the others has its turn first, and no two are taken for each other", () => {
  const { passes, send } = passesOf(2);
  send();
  passes.insert(passOf(9));
  passes.unsend();
  assert.deepEqual(send(), [9, 0]);
  const ids = passes.clear().map(({ id }) => id);
  assert.equal(new Set(ids).size, 3);
  assert.equal(passes.size, 0);
});
