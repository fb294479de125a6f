import assert from "node:assert/strict";
import { test } from "node:test";
import { Runtime } from "../../src/runtime/runtime.ts";
import { startEngine, TINY_GUIDED } from "../support.ts";

test("before an engine is ready, every process has run every graph, in all its sessions", async () => {
  const ran = new Map<Runtime, Set<string>>();
  const { run } = Runtime.prototype;
  Runtime.prototype.run = function (graph, batch, attempts, everywhere) {
    if (everywhere) ran.set(this, (ran.get(this) ?? new Set()).add(graph));
    return run.call(this, graph, batch, attempts, everywhere) as ReturnType<typeof run<typeof graph>>;
  };
  try {
    const engine = await startEngine({}, TINY_GUIDED, 3);
    await engine.runtime.close();
  } finally {
    Runtime.prototype.run = run;
  }
  assert.deepEqual(
    [...ran.values()].map((graphs) => [...graphs].sort()),
    Array.from({ length: 3 }, () => ["denoise", "score", "tilt"]),
  );
});
