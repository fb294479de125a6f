/** Early stop, thresholds, entropy budgets and blocks, on the shipped model. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import { TextEndWatch, textEnd } from "../../src/engine/answers/text-end.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { assertRefused, startEngine, TINY_GUIDED } from "../support/engine.ts";

const engine = await startEngine();
const guided = await startEngine({}, TINY_GUIDED);

const base = { prompt: "Once upon a time", length: 48, steps: 12, seed: 4 };

async function run(request: Partial<GenerateRequest>) {
  const steps: StepEvent[] = [];
  const answer = await engine.submit({ ...base, ...request }, (step) => steps.push(step)).result;
  return { answer, steps, sample: answer.samples[0]! };
}

test("an early stop gives the text of all steps, and computes nothing after its end", async () => {
  let saved = 0;
  for (let seed = 0; seed < 6; seed++) {
    const request = { seed, block_length: 8, n: 2 };
    const whole = await run(request);
    const text = whole.sample.text;
    const stop = [text.slice(10, 14), "not in it"];
    const asked = await run({ ...request, stop });
    const early = await run({ ...request, early_stop: true, stop });
    for (const [i, sample] of early.answer.samples.entries()) {
      const full = asked.answer.samples[i]!;
      assert.deepEqual([sample.text, sample.finish_reason], [full.text, full.finish_reason]);
      assert.deepEqual(sample.tokens, full.tokens.slice(0, sample.tokens.length));
      assert.ok(engine.model.tokenizer.decode(sample.tokens).startsWith(sample.text));
    }
    assert.equal(early.sample.finish_reason, "stop");
    const { usage, receipt } = early.answer;
    const revealed = early.steps.reduce((sum, step) => sum + step.revealed.length, 0);
    assert.equal(usage.completion_tokens, revealed);
    assert.ok(usage.completion_tokens <= asked.answer.usage.completion_tokens);
    assert.ok(usage.student_passes <= asked.answer.usage.student_passes);
    const counts = [0, 1].map((sample) => early.steps.filter((step) => step.sample === sample).length);
    assert.equal(usage.steps_done, Math.min(...counts));
    saved += asked.answer.usage.student_passes - usage.student_passes;

    const again = await engine.submit(receipt.request as GenerateRequest).result;
    assert.deepEqual(again.receipt, receipt);
  }
  assert.ok(saved > 20, `${saved} passes of 144 saved`);
});

test("a threshold takes fewer steps than its budget, and more the higher it is", async () => {
  const steps = [];
  for (const threshold of [0, 0.3, 0.9, 1]) {
    const {
      answer,
      sample,
      steps: records,
    } = await run({
      ...{ order: "confidence", threshold, steps: 48 },
    });
    assert.equal(sample.tokens.length, 48);
    assert.equal(answer.usage.steps_done, records.length);
    assert.equal(answer.usage.student_passes, records.length);
    for (const { revealed } of records.slice(0, -1))
      assert.ok(revealed.length === 1 || revealed.every(({ logprob }) => logprob >= Math.log(threshold)));
    steps.push(records.length);
  }
  assert.deepEqual(
    steps.toSorted((a, b) => a - b),
    steps,
  );
  assert.equal(steps[0], 1);
  assert.ok(steps[1]! < steps[2]! && steps[3] === 48, `${steps}`);
});

test("an entropy budget takes fewer steps the larger it is", async () => {
  const steps = [];
  for (const entropy_budget of [0, 3, 30, 1e6])
    steps.push((await run({ order: "entropy", entropy_budget, steps: 48 })).answer.usage.steps_done);
  assert.deepEqual(
    steps.toSorted((a, b) => b - a),
    steps,
  );
  assert.ok(steps[1]! < 48 && steps[3] === 1, `${steps}`);
});

test("blocks are revealed from the left, each with its share of the steps", async () => {
  for (const order of ["random", "confidence", "entropy"] as const) {
    const { steps, sample } = await run({ order, block_length: 12, steps: 10 });
    const start = engine.model.tokenizer.encode(base.prompt, 99)!.length;
    for (const { step, revealed } of steps.slice(0, 10)) {
      const block = [0, 2, 5, 7].findLastIndex((first) => first <= step - 1);
      for (const { position } of revealed)
        assert.equal(Math.floor((position - start) / 12), block, `${order}, step ${step}, ${position}`);
    }
    assert.equal(sample.tokens.length, 48);
  }
});

const REFUSED: [string, Partial<GenerateRequest>, string, RegExp][] = [
  [
    "a threshold in random order",
    { threshold: 0.5 },
    "/threshold",
    /order spread: set \/order to confidence/,
  ],
  ["a threshold by entropy", { order: "entropy", threshold: 0.5 }, "/threshold", /set \/order to confidence/],
  [
    "an entropy budget by confidence",
    { order: "confidence", entropy_budget: 1 },
    "/entropy_budget",
    /to entropy/,
  ],
  ["a quality beside a number of steps", { quality: "best" }, "/quality", /set \/steps to auto/],
  [
    "more blocks than steps",
    { block_length: 4, steps: 11 },
    "/block_length",
    /12 blocks of 48 tokens.*at least 5/,
  ],
];
for (const [what, request, path, message] of REFUSED)
  test(`refuses ${what}`, () => refused(engine, request, path, message));

test("refuses blocks, another order and an early stop where guidance or ranking needs whole canvases", () => {
  const rgas = { guidance: { mode: "rgas" as const } };
  refused(guided, { ...rgas, block_length: 8 }, "/block_length", /beside guidance/);
  refused(guided, { ...rgas, order: "entropy" }, "/order", /entropy cannot be guided: use order random/);
  refused(guided, { best_of: 2, early_stop: true }, "/early_stop", /beside best_of/);
});

function refused(target: Engine, request: Partial<GenerateRequest>, path: string, message: RegExp): void {
  assertRefused(target, { ...base, ...request }, path, message);
}

test("the end of a text is after its end of text, or after the token that completes a stop string", () => {
  const { tokenizer } = engine.model;
  const ids = Int32Array.from(tokenizer.encode("The dog ran to the park.", 99)!);
  assert.equal(textEnd(tokenizer, ids, []), undefined);
  assert.equal(textEnd(tokenizer, ids, ["cat"]), undefined);
  for (let length = 1; length <= ids.length; length++) {
    const stop = tokenizer.decode(ids.subarray(0, length));
    assert.equal(textEnd(tokenizer, ids, [stop]), length, stop);
  }
  assert.equal(textEnd(tokenizer, ids, ["park", "e d"]), textEnd(tokenizer, ids, ["e d"]));
  const ended = Int32Array.of(...ids.subarray(0, 3), tokenizer.special.endOfTextId, ...ids.subarray(3));
  assert.equal(textEnd(tokenizer, ended, ["park"]), 4);
});

test("a text is complete once every position before its end is known, in every span", () => {
  const { tokenizer } = engine.model;
  const { maskId: mask, endOfTextId: end } = tokenizer.special;
  const canvas = [7, mask, mask, mask, 8, mask, mask];
  const watch = new TextEndWatch(tokenizer, canvas, []);
  const complete = (...tokens: number[]) => watch.isComplete(Int32Array.from(tokens));
  assert.equal(complete(7, mask, end, mask, 8, mask, mask), false);
  assert.equal(complete(7, 9, end, mask, 8, mask, mask), false);
  assert.equal(complete(7, 9, end, mask, 8, 9, mask), false);
  assert.equal(complete(7, 9, end, mask, 8, 9, 9), true);
});

test("a quality takes its measured steps", async () => {
  for (const [quality, steps] of [
    ["draft", 8],
    ["normal", 8],
    ["best", 32],
  ] as const) {
    const { answer } = await run({ steps: "auto", quality, length: 64 });
    assert.deepEqual([answer.usage.steps, answer.receipt.request.steps], [steps, steps]);
  }
  const unmeasured = /no quality of tiny-guided was measured/;
  refused(guided, { steps: "auto", quality: "best" }, "/quality", unmeasured);
});
