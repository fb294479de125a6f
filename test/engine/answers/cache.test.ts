import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { cacheKey, ResultCache } from "../../../src/engine/answers/cache.ts";
import type { StepEvent } from "../../../src/engine/answers/step-emitter.ts";
import { prepare } from "../../../src/engine/prepare.ts";
import type { GenerateRequest } from "../../../src/engine/request.ts";
import { SampleGroup } from "../../../src/engine/sample-group.ts";
import { CancelledError } from "../../../src/errors.ts";
import { startEngine } from "../../support/engine.ts";

const engine = await startEngine({ cache: { maxBytes: 1e6, ttlMs: 60_000 } });
engine.on("batch", () => calls++);

let calls = 0;
const request = (seed: number | undefined): GenerateRequest => ({
  prompt: "Once upon a time",
  length: 60,
  steps: 12,
  seed,
  temperature: 1,
});

/** Run a request; return its steps, its answer and the number of batches it took. */
async function ask(body: GenerateRequest) {
  const steps: StepEvent[] = [];
  const before = calls;
  const result = await engine.submit(body, (step) => steps.push(step)).result;
  const { samples, usage, cache } = result;
  return { steps, essence: { samples, usage }, cache, calls: calls - before };
}

test("a repeated request with a seed is answered from the cache, with its steps", async () => {
  const first = await ask(request(1));
  const again = await ask(request(1));
  assert.deepEqual([first.cache, again.cache], ["miss", "hit"]);
  assert.ok(first.calls > 0);
  assert.equal(again.calls, 0);
  assert.deepEqual(again.steps, first.steps);
  assert.deepEqual(again.essence, first.essence);
  // Charged for the text alone.
  const handle = engine.submit(request(1));
  assert.deepEqual([handle.cost, handle.spent()], [1, 1]);
  // The same prompt as tokens: the key holds tokens, not text.
  const { cache } = await ask({ ...request(1), top_k: 0, order: "spread", guidance: { mode: "none" }, n: 1 });
  assert.equal(cache, "hit");
});

test("the request in a receipt gives the same answer", async () => {
  const result = await engine.submit(request(1)).result;
  const { receipt } = result;
  assert.equal(receipt.model_sha256, engine.model.sha256.cpu);
  const again = await engine.submit(receipt.request).result;
  assert.equal(again.cache, "hit");
  assert.deepEqual(again.receipt, receipt);
  const other = await engine.submit({ ...receipt.request, seed: 99 }).result;
  assert.notEqual(other.receipt.trace_sha256, receipt.trace_sha256);
});

test("a receipt names the deadline of its own request, also for a cached answer", async () => {
  const deadlineOf = async (more: Partial<GenerateRequest>) => {
    const { cache, receipt } = await engine.submit({ ...request(4), ...more }).result;
    return [cache, receipt.request.deadline_ms];
  };
  assert.deepEqual(await deadlineOf({ deadline_ms: 60_000 }), ["miss", 60_000]);
  assert.deepEqual(await deadlineOf({}), ["hit", undefined]);
  assert.deepEqual(await deadlineOf({ deadline_ms: 50_000 }), ["hit", 50_000]);
});

test("a request that differs in any field, or has a random seed, is a cache miss", async () => {
  const base = request(2);
  await ask(base);
  const others: Partial<GenerateRequest>[] = [
    { prompt: "Once upon a day" },
    { length: 61 },
    { steps: 13 },
    { seed: 3 },
    { temperature: 0.9 },
    { top_k: 9 },
    { top_p: 0.9 },
    { order: "confidence" },
    { n: 2 },
  ];
  for (const other of others)
    assert.equal((await ask({ ...base, ...other })).cache, "miss", JSON.stringify(other));
  assert.equal((await ask(request(undefined))).cache, "miss");
  assert.equal((await ask(request(undefined))).cache, "miss");
});

test("identical requests in flight run once, and each gets every step", async () => {
  const early = Array.from({ length: 3 }, () => ask(request(11)));
  const late = new Promise<Awaited<ReturnType<typeof ask>>>((resolve) =>
    engine.once("batch", () => engine.once("batch", () => setImmediate(() => resolve(ask(request(11)))))),
  );
  const answers = [...(await Promise.all(early)), await late];
  assert.deepEqual(
    answers.map(({ cache }) => cache),
    ["miss", "shared", "shared", "shared"],
  );
  for (const { steps, essence } of answers) {
    assert.deepEqual(steps, answers[0]!.steps);
    assert.deepEqual(essence, answers[0]!.essence);
  }
});

test("cancelling one of several equal requests keeps the others; the last ends the work", async () => {
  const handles = Array.from({ length: 3 }, () => engine.submit(request(21)));
  handles[0]!.cancel();
  handles[0]!.cancel();
  await assert.rejects(handles[0]!.result, CancelledError);
  assert.deepEqual((await handles[1]!.result).samples, (await handles[2]!.result).samples);

  const doomed = Array.from({ length: 2 }, () => engine.submit(request(22)));
  for (const handle of doomed) handle.cancel();
  for (const { result } of doomed) await assert.rejects(result, CancelledError);
  assert.deepEqual([engine.activeRows, engine.queueLength], [0, 0]);
  // A later request does not join the cancelled group.
  assert.equal((await ask(request(22))).cache, "miss");
});

test("an answer cut short by its deadline is neither cached nor shared", async () => {
  const hasty = { ...request(31), length: 200, steps: 1024, deadline_ms: 80 };
  const first = await ask(hasty);
  assert.equal(first.essence.samples[0]!.finish_reason, "deadline");
  assert.equal((await ask(hasty)).cache, "miss");
  const [a, b] = await Promise.all([ask({ ...request(32), deadline_ms: 60_000 }), ask(request(32))]);
  assert.deepEqual([a!.cache, b!.cache], ["miss", "miss"]);
  assert.equal((await ask({ ...request(32), deadline_ms: 1000 })).cache, "hit");
});

test("alternatives are computed again, and lookups are reported for requests with a seed alone", async () => {
  const lookups: unknown[] = [];
  const note = (lookup: unknown) => lookups.push(lookup);
  engine.on("lookup", note);
  const alternatives = { ...request(51), logprobs: true, top_logprobs: 2 };
  for (const body of [alternatives, alternatives, request(undefined), request(52), request(52)])
    await ask(body);
  engine.off("lookup", note);
  assert.deepEqual(lookups, [
    { tier: "memory", hit: false },
    { tier: "memory", hit: true },
  ]);
});

test("the cache is bounded in bytes and in time, and can be disabled", async () => {
  const { model } = engine;
  const answerTo = (seed: number) => {
    const { params } = prepare(model, request(seed), () => 0);
    const group = new SampleGroup(params, model, undefined, 0);
    return { params, records: group.records, outcome: group.outcome("cpu") };
  };
  const small = new ResultCache({ maxBytes: 10_000, ttlMs: 60_000 });
  for (let seed = 0; seed < 100; seed++) small.keep(`${seed}`, answerTo(seed));
  assert.ok(small.bytes > 0 && small.bytes <= 10_000);
  assert.equal(small.get("0"), undefined);
  assert.ok(small.get("99"));

  const brief = new ResultCache({ maxBytes: 10_000, ttlMs: 20 });
  brief.keep("a", answerTo(0));
  assert.ok(brief.get("a"));
  await sleep(60);
  assert.equal(brief.get("a"), undefined);

  const none = new ResultCache({ maxBytes: 0, ttlMs: 1000 });
  none.keep("a", answerTo(0));
  assert.equal(none.get("a"), undefined);
  const key = (more: Partial<GenerateRequest>) =>
    cacheKey(prepare(model, { ...request(0), ...more }, () => 0).params);
  assert.notEqual(key({}), key({ seed: 1 }));
  // Output options and the deadline are not part of the key.
  for (const more of [{ deadline_ms: 5 }, { stop: "a" }, { echo: true }, { logprobs: true }, { trace: true }])
    assert.equal(key({}), key(more));
});
