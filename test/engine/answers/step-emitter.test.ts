/** Emitting steps: each has the text of the whole canvas, and the event loop is not blocked. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { FairLoop } from "../../../src/engine/answers/fair-loop.ts";
import { type SampleRecord, StepEmitter } from "../../../src/engine/answers/step-emitter.ts";
import { render } from "../../../src/engine/answers/text.ts";
import type { GenerateRequest } from "../../../src/engine/request.ts";
import { CancelledError } from "../../../src/errors.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";

const engine = await startEngine({ cache: { maxBytes: 64e6, ttlMs: 600_000 } }, TINY_GUIDED);

/** Return the longest turn of the event loop during `work`, milliseconds. */
async function longestTurn(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let last = performance.now();
  let timer = setImmediate(function turn() {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    timer = setImmediate(turn);
  });
  await work();
  clearImmediate(timer);
  return longest;
}

const long: GenerateRequest = {
  template: "{{mask:1}}a".repeat(60),
  steps: 1024,
  n: 16,
  seed: 7,
  stop: ["b", "zz"],
};

test("the text of a step is the text of its canvas", async () => {
  const texts = new Map<number, string>();
  const request = { ...long, steps: 40, n: 2 };
  const { params, output } = engine.check(request);
  const canvases = Array.from({ length: 2 }, () => Int32Array.from(params.canvas));
  await engine.submit(request, ({ sample, revealed, text }) => {
    for (const { position, token } of revealed) canvases[sample]![position] = token;
    texts.set(sample, text);
    assert.equal(text, render(engine.model.tokenizer, canvases[sample]!, output).text);
  }).result;
  assert.equal(texts.size, 2);
});

test("an event has the fields of its record and no others", async () => {
  const { model } = engine;
  const checked = engine.check({ prompt: "a", length: 3, steps: 2, seed: 1, trace: true });
  const texts: string[] = [];
  const emitter = new StepEmitter(model, checked, (_, settled) => texts.push(settled()), new FairLoop());
  const [a, b] = ["a", "b"].map((text) => model.tokenizer.encode(text, 9)![0]!) as [number, number];
  const bare = { t: 0.5, masked: 2, rewards: [] };
  const top = [{ token: a, logprob: -0.5 }];
  const plain = { ...bare, kind: "plain", step: 0, revealed: [{ position: 1, token: a, logprob: -0.5 }] };
  const remasked = {
    ...{ ...bare, kind: "rerank", step: 1, rewards: [1, 2], chosen: 0, entropy: 0, settled: 1 },
    ...{ revealed: [{ position: 2, token: b, logprob: -1, top }], remasked: [], masked: 1 },
  };
  const particles = {
    ...{ ...bare, kind: "smc", step: 2, rewards: [1, 2], effectiveSampleSize: 1.5, ancestors: [0, 0] },
    ...{ revealed: [{ position: 3, token: a, logprob: -1 }], masked: 0 },
  };
  const unscored = { ...bare, kind: "tilt", step: 3, revealed: [], masked: 0 };
  const records = [plain, remasked, particles, unscored].map((record) => ({ sample: 0, record }));
  await emitter.emitAll(records as SampleRecord[]);
  const shown = (position: number, token: number, text: string, logprob: number) => ({
    ...{ position, token, text, logprob },
  });
  const common = { sample: 0, steps: 2, t: 0.5 };
  assert.deepEqual(emitter.trace, [
    { ...common, step: 1, revealed: [shown(1, a, "a", -0.5)], masked: 2, text: "a░░" },
    {
      ...{ ...common, step: 2, revealed: [{ ...shown(2, b, "b", -1), top_logprobs: top }] },
      ...{ remasked: [], settled: 1, masked: 1, entropy: 0, text: "ab░" },
      guidance: { kind: "rerank", rewards: [1, 2], chosen: 0 },
    },
    {
      ...{ ...common, step: 3, revealed: [shown(3, a, "a", -1)], masked: 0, text: "aba" },
      guidance: { kind: "smc", rewards: [1, 2], effective_sample_size: 1.5, ancestors: [0, 0] },
    },
    { ...common, step: 4, revealed: [], masked: 0, text: "aba" },
  ]);
  // Of a step with `settled`, what may still change is masked.
  assert.deepEqual(texts, ["a░░", "░░░", "aba", "aba"]);
});

test("a cached answer of 16,384 steps is emitted in slices, to late subscribers too", async () => {
  const counts: number[] = [];
  const listen = async (i: number) => {
    counts[i] = 0;
    const { cache } = await engine.submit(long, () => counts[i]!++).result;
    return cache;
  };
  const first = listen(0);
  // Joins after some steps, which are emitted at once.
  const joined = new Promise<string[]>((resolve) =>
    engine.once("batch", () => engine.once("batch", () => resolve(Promise.all([1, 2, 3].map(listen))))),
  );
  await first;
  assert.deepEqual(await joined, ["shared", "shared", "shared"]);
  const longest = await longestTurn(async () =>
    assert.deepEqual(await Promise.all([4, 5, 6].map(listen)), ["hit", "hit", "hit"]),
  );
  assert.deepEqual(counts, Array(7).fill(16 * 1024));
  assert.ok(longest < 100, `${longest} ms`);
});

test("a request cancelled while its steps are emitted gets no more, and the engine drains", async () => {
  await engine.submit(long).result;
  let told = 0;
  const handle = engine.submit(long, () => {
    if (++told === 100) handle.cancel();
  });
  await assert.rejects(handle.result, CancelledError);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(told, 100);
});

test("an error of a listener fails its own request only", async () => {
  await engine.submit(long).result;
  const broken = engine.submit(long, () => {
    throw new Error("broken listener");
  });
  const sound = engine.submit(long, () => {});
  await assert.rejects(broken.result, /broken listener/);
  assert.equal((await sound.result).cache, "hit");
});

test("tokens and budget of a request are computed once, and not at all when the queue is full", async () => {
  const { tokenizer } = engine.model;
  const encode = tokenizer.encode.bind(tokenizer);
  let encoded = 0;
  tokenizer.encode = (text, limit) => {
    encoded++;
    return encode(text, limit);
  };
  try {
    const checked = engine.check({ prompt: "Once", length: 60, steps: "auto", deadline_ms: 400 });
    // Other requests now leave less time, but the budget stays the one that was charged.
    const others = Array.from({ length: 20 }, () =>
      engine.submit({ prompt_tokens: [1], length: 60, steps: 60 }),
    );
    const handle = engine.start(checked);
    for (const other of others) other.cancel();
    assert.equal((await handle.result).usage.steps, checked.params.steps);
    assert.equal(encoded, 1);
    const { maxQueue } = engine.limits;
    engine.limits.maxQueue = -1000;
    assert.throws(() => engine.check({ prompt: "Once", steps: 4 }), { name: "OverloadedError" });
    engine.limits.maxQueue = maxQueue;
    assert.equal(encoded, 1);
  } finally {
    tokenizer.encode = encode;
  }
});

test("drain waits for requests whose steps are being emitted", async () => {
  let told = 0;
  void engine.submit(long, () => told++);
  await engine.drain();
  assert.equal(told, 16 * 1024);
});
