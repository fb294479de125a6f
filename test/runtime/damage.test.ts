/** Processes whose memory is damaged or short, and models that give no numbers: what is mended, and what is not. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FAULTS, type FaultKind } from "../../loadtest/chaos/faults.ts";
import type { Engine, EngineLimits } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { NonFiniteError } from "../../src/errors.ts";
import type { PoolEvents } from "../../src/runtime/pool.ts";
import { mismadeModel, withoutEmbedding } from "../support/damage.ts";
import { startEngine } from "../support/engine.ts";

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

/** An engine, and how its processes ended. */
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
    try {
      const expected = await trace();
      await FAULTS[kind](engine.pool.pids[0]!);
      assert.equal(await trace(), expected);
      assert.equal(ends.length, 1);
      assert.match(ends[0]!.reason!, says);
    } finally {
      await engine.pool.close();
    }
  });

test("a process that is frozen with nothing to do is replaced as well", async () => {
  const { engine, ends, trace } = await watched();
  try {
    const expected = await trace();
    const [frozen] = engine.pool.pids;
    await FAULTS.freeze(frozen!);
    while (ends.length === 0 || engine.pool.healthy === 0) await sleep(50);
    assert.notEqual(engine.pool.pids[0], frozen);
    assert.equal(await trace(), expected);
  } finally {
    await engine.pool.close();
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
    await FAULTS.memory(engine.pool.pids[0]!);
    const large = { ...request, prompt: "", length: 250, n: 16, steps: 4 };
    const answers = await Promise.all([1, 2, 3].map((seed) => engine.submit({ ...large, seed }).result));
    assert.equal(answers.length, 3);
    assert.equal(await trace(), expected);
    assert.ok(ends.length > 0, "the limit was not felt, so this test shows nothing");
  } finally {
    await engine.pool.close();
  }
});

/** The token for which `withoutNumber` gives no number. */
const TOKEN = 120;

/** A model that gives no number for one token. */
async function withoutNumber(name: string): Promise<string> {
  return mismadeModel(join(root, name), {
    "weights.fp16.safetensors": (weights) => withoutEmbedding(weights, TOKEN),
  });
}

const ask = (engine: Engine, prompt_tokens: number[], seed: number) =>
  engine.submit({ prompt_tokens, length: 12, steps: 4, seed, temperature: 1 }).result;

for (const workers of [1, 2])
  test(`a model that gives no number for one token fails requests with it, and those alone; of ${workers} processes each is restarted once at most`, async () => {
    const { engine, ends } = await watched(await withoutNumber(`nan-${workers}`), {}, workers);
    let counted = 0;
    engine.pool.on("non-finite", () => counted++);
    try {
      for (let seed = 0; seed < 6; seed++) {
        const guilty = ask(engine, [1, 2, TOKEN], seed);
        const others = [ask(engine, [1, 2, 3], seed), ask(engine, [4], seed)];
        await assert.rejects(guilty, NonFiniteError);
        for (const { samples } of await Promise.all(others)) assert.equal(samples[0]!.tokens.length, 12);
      }
      assert.ok(ends.length >= 1 && ends.length <= workers, `${ends.length} restarts`);
      assert.ok(ends.every(({ reason }) => reason === "numbers that are not finite"));
      // The first such batch of each worker that was there from the start is run twice.
      assert.ok(counted > 6 && counted <= 6 + workers, `${counted} batches`);
    } finally {
      await engine.pool.close();
    }
  });

test("weights of every worker damaged at once: nothing is lost, and each is restarted once", {
  skip: notHere,
}, async () => {
  const { engine, ends } = await watched(undefined, { maxBatchTokens: 256 }, 2);
  try {
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
  } finally {
    await engine.pool.close();
  }
});

test("once a model has shown its own fault, damage in a worker that is older than that is still mended", {
  skip: notHere,
}, async () => {
  const { engine, ends } = await watched(await withoutNumber("both"), {}, 2);
  try {
    const sound = (seed: number) => ask(engine, [1, 2, 3], seed);
    const seeds = [1, 2, 3, 4];
    const expected = (await Promise.all(seeds.map(sound))).map(({ samples }) => samples);
    const before = engine.pool.pids;
    await assert.rejects(ask(engine, [TOKEN], 1), NonFiniteError);
    assert.equal(ends.length, 1);
    const older = engine.pool.pids.find((pid) => before.includes(pid));
    await FAULTS.nan(older!);
    for (const [i, seed] of seeds.entries()) assert.deepEqual((await sound(seed)).samples, expected[i]);
    // The newer worker may have answered before the end of the older one is seen.
    while (ends.length < 2) await once(engine.pool, "restart");
    assert.deepEqual(
      ends.map(({ pid }) => pid),
      [before.find((pid) => pid !== older), older],
    );
  } finally {
    await engine.pool.close();
  }
});
