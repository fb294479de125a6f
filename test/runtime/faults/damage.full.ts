/** Workers that are frozen, damaged or out of memory are replaced, and nothing is lost. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FAULTS, type FaultKind } from "../../../loadtest/chaos/faults.ts";
import type { EngineLimits } from "../../../src/engine/engine.ts";
import type { GenerateRequest } from "../../../src/engine/request.ts";
import type { PoolEvents } from "../../../src/runtime/pool.ts";
import { startEngine } from "../../support/engine.ts";

const notHere = process.platform !== "linux" && "it reaches into the process by /proc";
const request: GenerateRequest = {
  prompt: "Once upon a time",
  length: 60,
  steps: 8,
  seed: 4,
  temperature: 1,
};

/** Start an engine and record how its workers end. */
async function watched(model?: string, limits: Partial<EngineLimits> = {}, workers = 1) {
  const engine = await startEngine(limits, model, workers);
  const ends: PoolEvents["restart"][0][] = [];
  engine.pool.on("restart", (end) => ends.push(end));
  const trace = async () => (await engine.submit(request).result).receipt.trace_sha256;
  return { engine, ends, trace };
}

const DAMAGES: [kind: FaultKind, says: RegExp, skip: string | false][] = [
  ["nan", /^numbers that are not finite$/, notHere],
  ["freeze", /^no sign of life$/, false],
];

for (const [kind, says, skip] of DAMAGES)
  test(`${kind}: the process is replaced, and the answer is that of a sound one`, { skip }, async () => {
    const { engine, ends, trace } = await watched();
    const expected = await trace();
    await FAULTS[kind](engine.pool.pids[0]!);
    assert.equal(await trace(), expected);
    assert.equal(ends.length, 1);
    assert.match(ends[0]!.reason!, says);
  });

test("a frozen idle worker is replaced", async () => {
  const { engine, ends, trace } = await watched();
  const expected = await trace();
  const [frozen] = engine.pool.pids;
  await FAULTS.freeze(frozen!);
  while (ends.length === 0 || engine.pool.healthy === 0) await sleep(50);
  assert.notEqual(engine.pool.pids[0], frozen);
  assert.equal(await trace(), expected);
});

const noLimits = notHere || (spawnSync("prlimit", ["--version"]).status !== 0 && "there is no prlimit here");

test("a worker out of memory is replaced, and large requests are answered", {
  skip: noLimits,
}, async () => {
  // Batches must be larger than the memory that a process has reserved.
  const { engine, ends, trace } = await watched(undefined, { maxBatchTokens: 8192 });
  const expected = await trace();
  await FAULTS.memory(engine.pool.pids[0]!);
  const large = { ...request, prompt: "", length: 250, n: 16, steps: 4 };
  const answers = await Promise.all([1, 2, 3].map((seed) => engine.submit({ ...large, seed }).result));
  assert.equal(answers.length, 3);
  assert.equal(await trace(), expected);
  assert.ok(ends.length > 0, "the limit was not felt, so this test shows nothing");
});

test("damaged weights in every worker lose nothing and restart each worker once", {
  skip: notHere,
}, async () => {
  const { engine, ends } = await watched(undefined, { maxBatchTokens: 256 }, 2);
  const traces = () =>
    Promise.all(
      [1, 2, 3, 4, 5, 6].map(
        async (seed) => (await engine.submit({ ...request, seed }).result).receipt.trace_sha256,
      ),
    );
  const expected = await traces();
  await Promise.all(engine.pool.pids.map((pid) => FAULTS.nan(pid)));
  assert.deepEqual(await traces(), expected);
  assert.deepEqual(
    ends.map(({ reason }) => reason),
    ["numbers that are not finite", "numbers that are not finite"],
  );
});
