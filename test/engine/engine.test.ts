import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import type { Answer } from "../../src/engine/answers/answer.ts";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { paddedLength } from "../../src/engine/scheduling/scheduler.ts";
import { CancelledError, InvalidRequestError, OverloadedError, UnavailableError } from "../../src/errors.ts";
import { GOLDEN, LIMITS, startEngine } from "../support/engine.ts";

const engine = await startEngine();

/** Run a request and return its answer and the steps that the listener received. */
async function run(request: GenerateRequest): Promise<{ result: Answer; steps: StepEvent[] }> {
  const steps: StepEvent[] = [];
  const result = await engine.submit(request, (step) => steps.push(step)).result;
  return { result, steps };
}

const REMASK = ["remask", "mode", "rate"];
const ADAPTIVE = ["order", "threshold", "entropy_budget", "block_length"];
const NAMED = ["steps", "length", "temperature", ...ADAPTIVE, ...REMASK];

for (const golden of GOLDEN.samples)
  test(`equals the PyTorch oracle, ${JSON.stringify(golden, NAMED)}`, async () => {
    const { prompt, tokens: _, reveals: __, remasked, ...request } = golden;
    const text = engine.model.tokenizer.decode(prompt);
    const { result, steps: records } = await run({ ...request, prompt: text });
    assert.deepEqual(result.samples[0]!.tokens, golden.tokens.slice(prompt.length));
    assert.equal(records.length, golden.reveals.length);
    assert.deepEqual(
      records.map((record) => record.remasked),
      remasked ?? records.map(() => undefined),
    );
    for (const [k, record] of records.entries())
      for (const [i, [position, token, logprob]] of golden.reveals[k]!.entries()) {
        const revealed = record.revealed[i]!;
        assert.deepEqual([revealed.position, revealed.token], [position, token]);
        assert.ok(Math.abs(revealed.logprob - logprob) < 1e-4, `${revealed.logprob} against ${logprob}`);
      }
    assert.equal(result.usage.student_passes, golden.reveals.filter((step) => step.length > 0).length);
  });

test("cancel frees the rows before the next step and does not affect other requests", async () => {
  const request = { prompt: "", length: 100, steps: 64, seed: 1, temperature: 1 };
  const other = engine.submit({ ...request, steps: 8 });
  const steps: StepEvent[] = [];
  const handle = engine.submit(request, (step) => {
    steps.push(step);
    if (step.step === 3) handle.cancel();
  });
  await assert.rejects(handle.result, CancelledError);
  const seen = steps.length;
  await other.result;
  assert.equal(steps.length, seen);
  assert.equal(engine.activeRows, 0);
  handle.cancel();
});

test("the default length of a prompt that leaves one token is 1", async () => {
  const context = engine.model.manifest.context_length;
  const prompt = " the".repeat(context - 1);
  const { result } = await run({ prompt, steps: 16, seed: 3, temperature: 1 });
  assert.equal(result.usage.prompt_tokens, context - 1);
  assert.equal(result.samples[0]!.tokens.length, 1);
  assert.equal(result.usage.student_passes, 1);
});

test("a full queue refuses with a Retry-After, and recovers", async () => {
  const small = await startEngine({ maxActive: 2, maxQueue: 3 });
  assert.equal(small.queueAgeMs, 0);
  const before = performance.now();
  const request = { prompt: "", length: 64, steps: 64, temperature: 1 };
  const handles = Array.from({ length: 5 }, () => small.submit(request));
  assert.throws(
    () => small.submit(request),
    (error) => error instanceof OverloadedError && error.retryAfter >= 1,
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(small.activeRows, 2);
  assert.equal(small.queueLength, 3);
  const age = small.queueAgeMs;
  assert.ok(age >= 40 && age < performance.now() - before, `${age} ms`);
  handles[4]!.cancel();
  assert.equal(small.queueLength, 2);
  await Promise.all(handles.slice(0, 4).map((handle) => handle.result));
  await small.submit(request).result;

  const checked = small.check(request);
  const last = small.submit(request);
  const drained = small.drain();
  for (const refused of [() => small.submit(request), () => small.start(checked)])
    assert.throws(refused, (error) => error instanceof UnavailableError && /shutting/.test(error.message));
  const ended: string[] = [];
  last.result.then(() => ended.push("request"));
  drained.then(() => ended.push("engine"));
  assert.equal((await last.result).samples[0]!.tokens.length, 64);
  await drained;
  assert.deepEqual(ended, ["request", "engine"]);
});

test("an engine that has not run its model refuses requests, and sends no one away for long", () => {
  const cold = new Engine(engine.model, engine.pool, LIMITS);
  assert.throws(
    () => cold.submit({ prompt: "", steps: 8 }),
    (error) => error instanceof UnavailableError && /still loading/.test(error.message),
  );
  for (const [backlogMs, seconds] of [
    [0, 1],
    [1001, 2],
    [1e9, 600],
  ]) {
    Object.defineProperty(cold, "backlogMs", { value: backlogMs, configurable: true });
    assert.equal(cold.retryAfter, seconds);
  }
});

test("known batch sizes are taken as they are, unless the operator has set one", async () => {
  const known = { maxTokens: 512, lightTokens: 128, spreadTokens: 256 };
  const measured = new Engine(engine.model, engine.pool, { ...LIMITS, maxBatchTokens: "auto" });
  await measured.measureBatches(known);
  assert.deepEqual(measured.bounds, known);
  const { bounds } = engine;
  await engine.measureBatches(known);
  assert.deepEqual(engine.bounds, bounds);
});

test("a request is charged its token passes, or the rendering of its steps if that is more", async () => {
  const request = { prompt: "", length: 16, steps: 16, seed: 1 };
  const [plain, withSteps] = [engine.check(request), engine.check(request, true)];
  assert.equal(engine.check({ ...request, trace: true }).emitCost, withSteps.emitCost);
  assert.ok(withSteps.emitCost > plain.emitCost);
  const handle = engine.start(plain);
  assert.equal(handle.spent(), plain.emitCost);
  const { usage } = await handle.result;
  assert.equal(handle.spent(), usage.student_passes * paddedLength(16, engine.model.manifest.context_length));
  assert.ok(handle.spent() <= plain.cost);
  // Few masked positions and many steps to render.
  const short = { prompt: "", length: 1, steps: 1024, seed: 1 };
  const rendered = engine.submit(short, () => {});
  await rendered.result;
  assert.equal(rendered.spent(), rendered.cost);
  assert.equal(rendered.cost, engine.check(short, true).emitCost);
});

test("a request joins an equal one while it runs, whatever ends beside it, and none that has ended", async () => {
  const request = { prompt: "", length: 60, steps: 12, seed: 77, temperature: 1 };
  const withDeadline = engine.submit({ ...request, deadline_ms: 60_000 });
  for (let i = 0; i < 4; i++) await once(engine, "batch");
  const running = engine.submit(request);
  await withDeadline.result;
  const joined = engine.submit(request);
  const alone = engine.submit({ ...request, deadline_ms: 60_000 });
  const states = [running, joined, alone].map(async ({ result }) => (await result).cache);
  assert.deepEqual(await Promise.all(states), ["miss", "shared", "miss"]);
  assert.equal((await engine.submit(request).result).cache, "miss");
});

test("every step of every sample is reported", async () => {
  const seen: number[] = [];
  const count = ({ step }: { step: number }) => seen.push(step);
  engine.on("step", count);
  await engine.submit({ prompt: "", length: 16, steps: 4, seed: 1, n: 2 }).result;
  engine.off("step", count);
  assert.deepEqual(seen.toSorted(), [0, 0, 1, 1, 2, 2, 3, 3]);
});

test("n samples equal those of single requests, and share the first step", async () => {
  const request = { prompt: "Once upon a time", length: 40, steps: 6, seed: 31, temperature: 1 };
  const canvases: number[] = [];
  const count = ({ rows }: { rows: number }) => canvases.push(rows);
  engine.on("batch", count);
  const { result, steps } = await run({ ...request, n: 4 });
  engine.off("batch", count);
  assert.deepEqual([canvases[0], canvases[1]], [1, 4]);
  assert.equal(result.samples.length, 4);
  assert.equal(new Set(result.samples.map(({ tokens }) => tokens.join())).size, 4);
  const alone = await run(request);
  assert.deepEqual(result.samples[0], alone.result.samples[0]);
  assert.deepEqual(
    steps.filter(({ sample }) => sample === 0),
    alone.steps,
  );
  assert.deepEqual((await run({ ...request, n: 2 })).result.samples, result.samples.slice(0, 2));
  assert.equal(result.usage.completion_tokens, 160);
});

test("at its deadline a request is answered with all positions revealed", async () => {
  const request = { prompt: "", length: 200, steps: 1024, seed: 8, temperature: 1, deadline_ms: 150 };
  const before = performance.now();
  const { result, steps } = await run(request);
  const milliseconds = performance.now() - before;
  assert.equal(result.samples[0]!.finish_reason, "deadline");
  assert.equal(result.usage.steps, 1024);
  assert.equal(result.usage.steps_done, steps.filter(({ step }) => step <= 1024).length);
  assert.ok(result.usage.steps_done < 1024);
  assert.ok(result.usage.student_passes < 200, `${result.usage.student_passes} passes`);
  assert.ok(steps.length > 2 && steps.at(-1)!.masked === 0);
  assert.equal(steps.at(-1)!.step, 1025);
  assert.ok(milliseconds < 2000, `${milliseconds} ms`);
  const free = await run({ ...request, steps: 8, deadline_ms: 60_000 });
  assert.notEqual(free.result.samples[0]!.finish_reason, "deadline");
  assert.equal(free.result.usage.steps_done, 8);
  assert.deepEqual(free.steps, (await run({ ...request, steps: 8, deadline_ms: undefined })).steps);
});

test("steps auto chooses a budget for the deadline, and the receipt reproduces the answer", async () => {
  const request = { prompt: "", length: 64, seed: 9, temperature: 1 };
  const { result } = await run({ ...request, steps: "auto", deadline_ms: 60_000 });
  const measured = engine.model.manifest.quality!.filter(({ steps }) => steps <= request.length);
  const [best] = measured.toSorted((a, b) => a.generative_perplexity - b.generative_perplexity);
  assert.equal(result.usage.steps, best!.steps, "without a deadline that presses, the best of the card");
  assert.equal(result.receipt.request.guidance!.mode === "rgas", best!.sampler === "rgas");
  const again = await run(result.receipt.request);
  assert.deepEqual(result.samples, again.result.samples);
  const hasty = await run({ ...request, steps: "auto", deadline_ms: 20 });
  assert.ok(hasty.result.usage.steps < best!.steps, `${hasty.result.usage.steps} steps in 20 ms`);
  const hurry = { ...request, steps: "auto", deadline_ms: 60_000 } as const;
  const { params } = engine.check(hurry, false, performance.now() - 59_980);
  assert.ok(params.steps < best!.steps, `${params.steps} steps in the 20 ms that are left`);
  assert.throws(() => engine.submit({ ...request, steps: "auto" }), InvalidRequestError);
});

test("a request that waits past its deadline is answered with one pass", async () => {
  const small = await startEngine({ maxActive: 1 });
  const long = small.submit({ prompt: "", length: 200, steps: 400, seed: 1, temperature: 1 });
  const short = small.submit({
    prompt: "",
    length: 20,
    steps: 16,
    seed: 2,
    temperature: 1,
    deadline_ms: 100,
  });
  const result = await short.result;
  assert.equal(result.usage.student_passes, 1);
  assert.equal(result.samples[0]!.finish_reason, "deadline");
  long.cancel();
  await assert.rejects(long.result, CancelledError);
});

test("steps that reveal nothing are emitted in order, over several turns of the event loop", async () => {
  let turn = 0;
  let timer = setImmediate(function count() {
    turn++;
    timer = setImmediate(count);
  });
  const turns: number[] = [];
  const heard: number[][] = Array.from({ length: 16 }, () => []);
  const request = { prompt: "", length: 1, steps: 1024, seed: 3, n: 16 };
  const { samples } = await engine.submit(request, ({ sample, step }) => {
    turns.push(turn);
    heard[sample]!.push(step);
  }).result;
  clearImmediate(timer);
  const all = Array.from({ length: 1024 }, (_, i) => i + 1);
  assert.deepEqual(
    heard,
    Array.from({ length: 16 }, () => all),
  );
  assert.equal(samples.length, 16);
  const inTurn = new Map<number, number>();
  for (const at of turns) inTurn.set(at, (inTurn.get(at) ?? 0) + 1);
  const most = Math.max(...inTurn.values());
  assert.ok(most < 1024, `${most} of ${turns.length} steps in one turn`);
});
