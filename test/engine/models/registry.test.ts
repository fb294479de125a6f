/** Models are loaded on demand and unloaded to make room. */

import assert from "node:assert/strict";
import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { Answer } from "../../../src/engine/answers/answer.ts";
import type { ModelRegistry } from "../../../src/engine/models/registry.ts";
import type { GenerateRequest } from "../../../src/engine/request.ts";
import {
  CancelledError,
  NotFoundError,
  OverloadedError,
  StartupError,
  UnavailableError,
} from "../../../src/errors.ts";
import { mismadeModel } from "../../support/damage.ts";
import { ask, MASK, PLAIN, SIGMA, startRegistry } from "../../support/models.ts";
import { scratch } from "../../support/scratch.ts";

const CACHE = { maxBytes: 1e6, ttlMs: 60_000 };
const request = (seed: number, more: Partial<GenerateRequest> = {}): GenerateRequest => ({
  ...{ prompt: "Once", length: 24, steps: 6, seed, logprobs: true },
  ...more,
});

const statesOf = ({ models }: ModelRegistry) => models.map(({ state }) => state);
const soon = () => new Promise((resolve) => setImmediate(resolve));

test("a model in use is unloaded once idle; later requests for it wait behind the other", async () => {
  const models = await startRegistry([PLAIN, MASK], { maxLoaded: 1 });
  const ended: string[] = [];
  const note = (name: string) => (answer: Answer) => {
    ended.push(name);
    return answer;
  };
  const [plain] = models.models;
  const running = ask(models, "tiny-plain", request(1, { length: 60, steps: 60 })).then(note("running"));
  const other = ask(models, "tiny-mask", request(1)).then(note("other"));
  while (!plain!.closing) await soon();
  const late = ask(models, "tiny-plain", request(2)).then(note("late"));
  assert.equal(plain!.queueLength, 1);
  await Promise.all([running, other, late]);
  assert.deepEqual(ended, ["running", "other", "late"]);
});

test("the least recently used model makes room; the wait counts, and the cache outlives it", async () => {
  const models = await startRegistry([PLAIN, MASK, SIGMA], { maxLoaded: 2 }, { cache: CACHE });
  const hurried = await ask(models, "tiny-mask", request(1, { deadline_ms: 1 }));
  assert.equal(hurried.samples[0]!.finish_reason, "deadline");
  assert.ok(hurried.timing.queue_ms > 20, `${hurried.timing.queue_ms} ms`);
  // The same parameters are another entry for each model.
  for (const name of ["tiny-mask", "tiny-plain", "tiny-sigma"])
    assert.equal((await ask(models, name, request(1))).cache, "miss");
  assert.deepEqual(statesOf(models), ["loaded", "unloaded", "loaded"]);
  assert.equal((await ask(models, "tiny-mask", request(1))).cache, "hit");
  assert.deepEqual(statesOf(models), ["unloaded", "loaded", "loaded"]);
});

test("a request that waits counts as queued, can be cancelled, and then nothing is unloaded", async () => {
  const models = await startRegistry([PLAIN, MASK], { maxLoaded: 1 }, { maxQueue: 0, maxActive: 1 });
  const [plain, mask] = models.models;
  // The first model stays in use.
  let release = () => {};
  const held = models.use(
    plain!,
    new AbortController().signal,
    () => new Promise<void>((end) => (release = end)),
  );
  const controller = new AbortController();
  const waiting = ask(models, "tiny-mask", request(1), controller.signal);
  assert.equal(mask!.queueLength, 1);
  await assert.rejects(ask(models, "tiny-mask", request(2)), OverloadedError);
  await assert.rejects(ask(models, "tiny-none", request(2)), NotFoundError);
  while (!plain!.closing) await soon();
  controller.abort();
  await assert.rejects(waiting, CancelledError);
  await assert.rejects(ask(models, "tiny-mask", request(1), controller.signal), CancelledError);
  while (plain!.closing || mask!.state !== "unloaded") await soon();
  assert.equal(mask!.queueLength, 0);
  assert.equal((await ask(models, "tiny-plain", request(1))).model, "tiny-plain");
  release();
  await held;
  assert.deepEqual(statesOf(models), ["loaded", "unloaded"]);
});

test("a load that fails gives 503 with the reason to all who wait, and can be tried again", async () => {
  const folder = scratch("models");
  const [damaged, mismade] = [join(folder, "damaged"), join(folder, "mismade")];
  await cp(MASK, damaged, { recursive: true });
  await mismadeModel(mismade, { "denoise.fp32.onnx": () => Buffer.from("no graph") });
  const models = await startRegistry([PLAIN, damaged, mismade], { maxLoaded: 1, retryMs: 0 });
  const failures: string[] = [];
  models.on("load-failed", ({ name }) => failures.push(name));
  const refused = (name: string, reason: RegExp) =>
    assert.rejects(ask(models, name, request(1)), (error) => {
      assert.ok(error instanceof UnavailableError);
      assert.match(error.message, reason);
      assert.ok(!error.message.includes(folder), "the path stays in the log");
      return true;
    });
  await writeFile(join(damaged, "tokenizer.json"), "damaged");
  const reason = /^tiny-mask cannot be loaded: tokenizer\.json is damaged/;
  await Promise.all([refused("tiny-mask", reason), refused("tiny-mask", reason)]);
  assert.deepEqual(failures, ["tiny-mask"]);
  // Damaged files are no reason to unload another model.
  assert.deepEqual(statesOf(models), ["loaded", "unloaded", "unloaded"]);
  await refused("tiny-guided", /^tiny-guided cannot be loaded: /);
  await cp(MASK, damaged, { recursive: true });
  assert.equal((await ask(models, "tiny-mask", request(1))).model, "tiny-mask");
  assert.deepEqual(failures, ["tiny-mask", "tiny-guided"]);
  // What failed is not tried again at once.
  const [, , broken] = models.models;
  broken!.fail(new StartupError("is damaged"), 60_000);
  await assert.rejects(ask(models, "tiny-guided", request(1)), { name: "UnavailableError", retryAfter: 60 });
  assert.equal(failures.length, 2);
});

test("a drain answers requests that wait for a load; an abort refuses them", async () => {
  for (const stop of ["drain", "abort"] as const) {
    const models = await startRegistry([PLAIN, MASK], { maxLoaded: 1 });
    const running = ask(models, "tiny-plain", request(1, { length: 60, steps: 60 }));
    const waiting = ask(models, "tiny-mask", request(1));
    await soon();
    const stopped = models[stop]();
    await assert.rejects(ask(models, "tiny-plain", request(2)), /shutting down/);
    if (stop === "drain") assert.equal((await waiting).model, "tiny-mask");
    else for (const one of [running, waiting]) await assert.rejects(one, UnavailableError);
    await stopped;
    const pids = models.engines.flatMap(({ pool }) => pool.pids);
    await models.close();
    for (const pid of pids) assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
  }
});
