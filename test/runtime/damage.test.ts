/** Processes whose memory is damaged or short, and models that give no numbers: what is mended, and what is not. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FAULTS, type FaultKind } from "../../loadtest/chaos/faults.ts";
import type { EngineLimits } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { RuntimeFailure } from "../../src/errors.ts";
import type { PoolEvents } from "../../src/runtime/pool.ts";
import { embeddingRow, mismadeModel } from "../damage.ts";
import { startEngine, TINY_GUIDED } from "../support.ts";

const root = await mkdtemp(join(tmpdir(), "didi-damage-"));
after(() => rm(root, { recursive: true }));

const notHere = process.platform !== "linux" && "it reaches into the process by /proc";
const request: GenerateRequest = {
  prompt: "Once upon a time",
  length: 60,
  steps: 8,
  seed: 4,
  temperature: 1,
};

/** An engine of one process, and how its processes ended. */
async function watched(model?: string, limits: Partial<EngineLimits> = {}) {
  const engine = await startEngine(limits, model);
  const ends: PoolEvents["restart"][0][] = [];
  engine.runtime.on("restart", (end) => ends.push(end));
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
    try {
      const expected = await trace();
      await FAULTS[kind](engine.runtime.pids[0]!);
      assert.equal(await trace(), expected);
      assert.equal(ends.length, 1);
      assert.match(ends[0]!.reason!, says);
    } finally {
      await engine.runtime.close();
    }
  });

test("a process that is frozen with nothing to do is replaced as well", async () => {
  const { engine, ends, trace } = await watched();
  try {
    const expected = await trace();
    const [frozen] = engine.runtime.pids;
    await FAULTS.freeze(frozen!);
    while (ends.length === 0 || engine.runtime.healthy === 0) await sleep(50);
    assert.notEqual(engine.runtime.pids[0], frozen);
    assert.equal(await trace(), expected);
  } finally {
    await engine.runtime.close();
  }
});

const noLimits = notHere || (spawnSync("prlimit", ["--version"]).status !== 0 && "there is no prlimit here");

test("a process that gets no more memory is replaced, and large requests are answered", {
  skip: noLimits,
}, async () => {
  // A process may have room that it has set aside: calls must be larger than that.
  const { engine, ends, trace } = await watched(undefined, { maxBatchTokens: 8192 });
  try {
    const expected = await trace();
    await FAULTS.memory(engine.runtime.pids[0]!);
    const large = { ...request, prompt: "", length: 250, n: 16, steps: 4 };
    const answers = await Promise.all([1, 2, 3].map((seed) => engine.submit({ ...large, seed }).result));
    assert.equal(answers.length, 3);
    assert.equal(await trace(), expected);
    assert.ok(ends.length > 0, "the limit was not felt, so this test shows nothing");
  } finally {
    await engine.runtime.close();
  }
});

test("a model that gives no number for one token fails requests with it, and those alone; one process is spent on it", async () => {
  const token = 120;
  const { start, bytes } = await embeddingRow(TINY_GUIDED, token);
  const folder = await mismadeModel(join(root, "nan"), {
    "graphs.fp32.bin": (weights) => {
      for (let at = start; at < start + bytes; at += 4) weights.writeFloatLE(Number.NaN, at);
      return weights;
    },
  });
  const { engine, ends } = await watched(folder);
  try {
    const ask = (prompt_tokens: number[], seed: number) =>
      engine.submit({ prompt_tokens, length: 12, steps: 4, seed, temperature: 1 }).result;
    for (let seed = 0; seed < 3; seed++) {
      const guilty = ask([1, 2, token], seed);
      const others = [ask([1, 2, 3], seed), ask([4], seed)];
      await assert.rejects(guilty, RuntimeFailure);
      for (const { samples } of await Promise.all(others)) assert.equal(samples[0]!.tokens.length, 12);
    }
    assert.deepEqual(
      ends.map(({ reason }) => reason),
      ["numbers that are not finite"],
    );
  } finally {
    await engine.runtime.close();
  }
});
