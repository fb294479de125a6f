import assert from "node:assert/strict";
import { test } from "node:test";
import { Worker } from "../../src/runtime/worker-process.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";

test("when an engine is ready, every worker has run every graph in all its sessions", async () => {
  const ran = new Map<Worker, Set<string>>();
  const { run } = Worker.prototype;
  Worker.prototype.run = function (call, limitMs, everywhere) {
    if (everywhere) ran.set(this, (ran.get(this) ?? new Set()).add(call.graph));
    return run.call(this, call, limitMs, everywhere);
  };
  try {
    const engine = await startEngine({}, TINY_GUIDED, 3);
    await engine.pool.close();
  } finally {
    Worker.prototype.run = run;
  }
  assert.deepEqual(
    [...ran.values()].map((graphs) => [...graphs].sort()),
    Array.from({ length: 3 }, () => ["denoise", "score", "tilt"]),
  );
});
