import assert from "node:assert/strict";
import { test } from "node:test";
import type { Answer } from "../../src/engine/answers/answer.ts";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { CancelledError, InvalidRequestError, OverloadedError, UnavailableError } from "../../src/errors.ts";
import { GOLDEN, startEngine } from "../support/engine.ts";

const engine = await startEngine();

/** Run a request and return its answer and the steps that the listener received. */
async function run(request: GenerateRequest): Promise<{ result: Answer; steps: StepEvent[] }> {
  const steps: StepEvent[] = [];
  const result = await engine.submit(request, (step) => steps.push(step)).result;
  return { result, steps };
}

/** Return an answer without ids and times. */
const essence = ({ samples, seed, usage, receipt }: Answer) => ({ samples, seed, usage, receipt });

const REMASK = ["remask", "mode", "rate"];
const ADAPTIVE = ["order", "threshold", "entropy_budget", "block_length"];
const NAMED = ["steps", "length", "temperature", ...ADAPTIVE, ...REMASK];

for (const golden of GOLDEN.generations)
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

const requests: GenerateRequest[] = Array.from({ length: 12 }, (_, i) => ({
  prompt: ["Once upon a time", "", "The little dog"][i % 3]!,
  length: 20 + 17 * (i % 5),
  steps: [1, 4, 9, 24][i % 4]!,
  seed: 1000 + i,
  temperature: [1, 0.7, 0][i % 3]!,
}));

test("a request gives the same bits alone, beside other requests and in another order", async () => {
  const alone = [];
  for (const request of requests) alone.push(await run(request));
  let shared = 0;
  const count = ({ rows }: { rows: number }) => {
    if (rows > 1) shared++;
  };
  engine.on("batch", count);
  const together = await Promise.all(requests.map(run));
  const reversed = (await Promise.all(requests.toReversed().map(run))).reverse();
  engine.off("batch", count);
  assert.ok(shared > 10, "the requests did not share calls, so this test shows nothing");
  for (const [i, { result, steps }] of alone.entries())
    for (const other of [together[i]!, reversed[i]!]) {
      assert.deepEqual(essence(other.result), essence(result));
      assert.deepEqual(other.steps, steps);
    }
});

test("the reveals of all steps are the answer, and the last step has its text", async () => {
  const { result, steps } = await run({
    prompt: "Tom had a red",
    length: 50,
    steps: 12,
    seed: 4,
    temperature: 1,
  });
  const prompt = result.usage.prompt_tokens;
  const tokens = new Array<number>(50).fill(-1);
  let masked = 50;
  for (const [k, step] of steps.entries()) {
    assert.equal(step.step, k + 1);
    for (const { position, token, logprob } of step.revealed) {
      assert.equal(tokens[position - prompt], -1);
      assert.ok(logprob <= 0);
      tokens[position - prompt] = token;
    }
    masked -= step.revealed.length;
    assert.equal(step.masked, masked);
  }
  assert.deepEqual(tokens, result.samples[0]!.tokens);
  assert.equal(steps.at(-1)!.text, result.samples[0]!.text);
  assert.equal(steps[0]!.t, 1);
});

test("a worker killed during a request changes nothing", async () => {
  const request = { prompt: "Once upon a time", length: 100, steps: 32, seed: 77, temperature: 1 };
  const undisturbed = await run(request);
  let restarts = 0;
  engine.pool.on("restart", () => restarts++);
  const steps: StepEvent[] = [];
  const result = await engine.submit(request, (step) => {
    steps.push(step);
    if (step.step === 10 || step.step === 20) process.kill(engine.pool.pids[0]!, "SIGKILL");
  }).result;
  assert.equal(restarts, 2);
  assert.deepEqual(essence(result), essence(undisturbed.result));
  assert.deepEqual(steps, undisturbed.steps);
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

test("a request that does not fit the context is refused with its field", () => {
  const base = { length: 10, steps: 4, seed: 1, temperature: 1 };
  const context = engine.model.manifest.context_length;
  const refused = (request: GenerateRequest, path: string, tooLarge: boolean) =>
    assert.throws(
      () => engine.submit(request),
      (error) =>
        error instanceof InvalidRequestError && error.fields[0]!.path === path && error.tooLarge === tooLarge,
    );
  refused({ ...base, prompt: "word ".repeat(context * 3) }, "/prompt", true);
  refused({ ...base, prompt: "a", prompt_tokens: [1] }, "/prompt_tokens", false);
  refused(base, "/prompt", false);
  refused({ ...base, prompt_tokens: [1, 4095] }, "/prompt_tokens/1", false);
  refused({ ...base, prompt_tokens: new Array(context).fill(1) }, "/prompt_tokens", true);
  refused({ ...base, prompt: "", length: context + 1 }, "/length", false);
});

test("the default length of a prompt that leaves one token is 1", async () => {
  const context = engine.model.manifest.context_length;
  const prompt = " the".repeat(context - 1);
  const { result } = await run({ prompt, steps: 16, seed: 3, temperature: 1 });
  assert.equal(result.usage.prompt_tokens, context - 1);
  assert.equal(result.samples[0]!.tokens.length, 1);
  assert.equal(result.usage.student_passes, 1);
});

test("a random seed reproduces the text", async () => {
  const request = { prompt: "A cat", length: 24, steps: 6, temperature: 1 };
  const { result } = await run(request);
  assert.ok(Number.isSafeInteger(result.seed));
  assert.deepEqual(essence((await run({ ...request, seed: result.seed })).result), essence(result));
});

test("a full queue refuses with a Retry-After, and recovers", async () => {
  const small = await startEngine({ maxActive: 2, maxQueue: 3 });
  const request = { prompt: "", length: 64, steps: 64, temperature: 1 };
  const handles = Array.from({ length: 5 }, () => small.submit(request));
  assert.throws(
    () => small.submit(request),
    (error) => error instanceof OverloadedError && error.retryAfter >= 1,
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(small.activeRows, 2);
  assert.equal(small.queueLength, 3);
  handles[4]!.cancel();
  assert.equal(small.queueLength, 2);
  await Promise.all(handles.slice(0, 4).map((handle) => handle.result));
  await small.submit(request).result;

  const last = small.submit(request);
  const drained = small.drain();
  assert.throws(() => small.submit(request), UnavailableError);
  assert.equal((await last.result).samples[0]!.tokens.length, 64);
  await drained;
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

test("guidance cannot be combined with order confidence", () => {
  const request = { prompt: "", length: 4, steps: 2, temperature: 1, order: "confidence" as const };
  const guided = () => engine.submit({ ...request, guidance: { mode: "rgas" } });
  assert.throws(guided, InvalidRequestError);
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
