/** Canvases from prompts, templates and ids, and their text. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { type CanvasRequest, layoutOf, type MaskSpan, maskSpans } from "../../src/engine/layout.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import { assertRefused, startEngine, TINY_GUIDED } from "../support/engine.ts";

const engine = await startEngine();
/** A model of random weights with a discriminator. */
const guided = await startEngine({}, TINY_GUIDED);

const base = { steps: 6, seed: 4, temperature: 1 };

async function run(target: Engine, request: Partial<GenerateRequest>) {
  const steps: StepEvent[] = [];
  const answer = await target.submit({ ...base, ...request }, (step) => steps.push(step)).result;
  return { answer, steps, sample: answer.samples[0]! };
}

function refused(target: Engine, request: Partial<GenerateRequest>, path: string, message: RegExp): void {
  assertRefused(target, { ...base, ...request }, path, message);
}

test("the spans of a template are filled, and its text does not change", async () => {
  const texts = ["Thé cat 🐈 sat ", " on the ", ".\n\n  é̂́ said [MASK] and <|endoftext|>"];
  const template = `${texts[0]}{{mask:4}}${texts[1]}{{mask:1}}${texts[2]}{{mask:7}}`;
  const { sample, answer, steps } = await run(engine, { template });
  assert.equal(sample.spans!.length, 3);
  assert.equal(sample.text, texts.map((text, i) => text + sample.spans![i]).join(""));
  assert.equal(sample.tokens.length, 12);
  assert.equal(answer.usage.completion_tokens, 12);
  assert.equal(steps.at(-1)!.text, sample.text);
  assert.ok(steps[0]!.text.includes("░") && steps[0]!.text.startsWith(texts[0]!));
  const positions = steps.flatMap(({ revealed }) => revealed.map(({ position }) => position));
  assert.equal(new Set(positions).size, 12);

  // The ids in the receipt are the same canvas and give the same tokens.
  const { receipt } = answer;
  assert.equal(receipt.request.tokens!.filter((id) => id === engine.model.manifest.mask_token_id).length, 12);
  const again = await run(engine, receipt.request);
  assert.deepEqual(again.answer.receipt, receipt);
  assert.deepEqual(again.sample.spans, sample.spans);
});

test("a canvas has the given ids, and pieces whose borders are whole characters", () => {
  const { model } = engine;
  const mask = model.manifest.mask_token_id;
  const ids = (text: string) => model.tokenizer.encode(text, 99)!;
  const [a, once] = [ids("a"), ids("Once")];
  const cat = ids("🐈"); // one id for each byte
  const text = (text: string) => ({ kind: "text", text });
  const span = (start: number, length: number, before?: number[], after?: number[]) => ({
    ...{ kind: "span", start, length },
    ...(before && { before: Buffer.from(before) }),
    ...(after && { after: Buffer.from(after) }),
  });
  const choices = [
    ["x", "b"],
    ["b", "y"],
  ];
  const decided = { choices: [{ chosen: 1 }, { chosen: 0 }] };
  const table: [CanvasRequest, number[], object[]][] = [
    [{ prompt: "Once", length: 2 }, [...once, mask, mask], [text("Once"), span(1, 2, [])]],
    [
      { prompt_tokens: [...once, cat[0]!], length: 1 },
      [...once, cat[0]!, mask],
      [text("Once"), span(2, 1, [0xf0])],
    ],
    [{ prompt_tokens: [cat[1]!], length: 1 }, [cat[1]!, mask], [text("\ufffd"), span(1, 1, [])]],
    [{ template: "a{{mask:2}}Once" }, [...a, mask, mask, ...once], [text("a"), span(1, 2), text("Once")]],
    [
      { template: "a{{choice}}{{choice}}", choices, decided },
      [...a, ...ids("b"), ...ids("b")],
      [text("a"), text("b"), text("b")],
    ],
    [
      { tokens: [mask, ...once, mask, mask] },
      [mask, ...once, mask, mask],
      [span(0, 1, undefined, []), text("Once"), span(2, 2, [])],
    ],
    [
      { tokens: [...a, cat[0]!, mask, cat[3]!, ...once, mask] },
      [...a, cat[0]!, mask, cat[3]!, ...once, mask],
      [text("a"), span(2, 1, [0xf0], [0x88]), text("Once"), span(5, 1, [])],
    ],
    // What lies inside one character belongs to the span.
    [{ tokens: [mask, cat[1]!, mask] }, [mask, cat[1]!, mask], [span(0, 3)]],
    [{ tokens: [cat[1]!, mask] }, [cat[1]!, mask], [text("\ufffd"), span(1, 1, [])]],
    [{ tokens: [mask, cat[0]!] }, [mask, cat[0]!], [span(0, 1, undefined, []), text("\ufffd")]],
  ];
  for (const [request, canvas, pieces] of table) {
    const layout = layoutOf(model, request);
    assert.deepEqual(layout.canvas, canvas);
    assert.deepEqual(layout.pieces, pieces);
    const spans = pieces.filter((piece) => "start" in piece) as MaskSpan[];
    assert.deepEqual(
      maskSpans(layout),
      spans.map(({ start, length }) => ({ start, length })),
    );
  }
  // The whole context may be used, and not a token more.
  const { context_length: context } = model.manifest;
  const a256 = new Array(context).fill(a[0]!);
  for (const [request, allowed] of [
    [{ prompt_tokens: a256.slice(1) }, true],
    [{ prompt_tokens: a256.slice(1), length: 2 }, false],
    [{ prompt_tokens: a256 }, false],
    [{ prompt_tokens: [0, mask] }, false],
    [{ template: `{{mask:${context - 1}}}a` }, true],
    [{ template: `{{mask:${context}}}` }, true],
    [{ template: `{{mask:${context}}}a` }, false],
    [{ template: `a{{mask:${context}}}` }, false],
    [{ template: "a" }, false],
    [{ tokens: a256.with(0, mask) }, true],
    [{ tokens: a256 }, false],
    [{ tokens: [mask + 1, mask] }, false],
    [{}, false],
  ] as [CanvasRequest, boolean][])
    if (allowed) assert.equal(layoutOf(model, request).canvas.length, context);
    else assert.throws(() => layoutOf(model, request), InvalidRequestError, JSON.stringify(request));
});

test("a template that ends in its only span equals a prompt", async () => {
  const prompt = await run(engine, { prompt: "Once upon a time", length: 30 });
  const template = await run(engine, { template: "Once upon a time{{mask:30}}" });
  assert.deepEqual(template.sample.tokens, prompt.sample.tokens);
  assert.equal(template.answer.receipt.trace_sha256, prompt.answer.receipt.trace_sha256);
  assert.equal(template.sample.text, `Once upon a time${prompt.sample.text}`);
});

test("what is no canvas is refused, and says why", () => {
  const context = engine.model.manifest.context_length;
  const mask = engine.model.manifest.mask_token_id;
  refused(engine, { prompt: "a", template: "{{mask:1}}" }, "/template", /cannot be combined with \/prompt/);
  refused(engine, { prompt: "a", prompt_tokens: [1] }, "/prompt_tokens", /cannot be combined with \/prompt/);
  refused(engine, { prompt_tokens: new Array(context).fill(1) }, "/prompt_tokens", /context of 256/);
  for (const broken of ["{{mask:0}}", "{{mask:-1}}", "{{mask:1e3}}", "{{mask: 3}}", "{{mask:99999999}}"])
    refused(engine, { template: `a ${broken} b {{mask:2}}` }, "/template", /which is not a span/);
  refused(engine, { template: `{{mask:${context + 1}}}` }, "/template", /context of 256/);
  refused(engine, { template: `a{{mask:${context}}}` }, "/template", /context of 256/);
  refused(engine, { template: "a b ".repeat(20_000) }, "/template", /context of 256/);
  refused(engine, { template: "{{mask:9}}", length: 9 }, "/length", /no effect with \/template/);
  refused(engine, { template: "{{mask:9}}", echo: true }, "/echo", /no effect without a prompt/);
  refused(engine, { tokens: [mask, mask + 1] }, "/tokens/1", /at most 4095/);
  refused(engine, { tokens: new Array(context + 1).fill(mask) }, "/tokens", /context of 256/);
  refused(guided, { prompt: "a", n: 3, best_of: 2 }, "/best_of", /at least n, which is 3/);
});

test("a span ends before a stop string, across the borders of tokens; the tokens stay", async () => {
  const request = { prompt: "Once upon a time", length: 60 };
  const { sample: whole } = await run(engine, request);
  for (let at = 5; at + 7 < whole.text.length; at += 11) {
    const stop = whole.text.slice(at, at + 7);
    const cut = whole.text.indexOf(stop);
    const { sample } = await run(engine, { ...request, stop: ["not in it", stop] });
    assert.equal(sample.text, whole.text.slice(0, cut));
    assert.equal(sample.finish_reason, "stop");
    assert.deepEqual(sample.tokens, whole.tokens);
  }
  // The earlier of two stop strings ends the span.
  const [first, later] = [whole.text.slice(8, 14), whole.text.slice(20, 26)];
  const { sample } = await run(engine, { ...request, stop: [later, first] });
  assert.equal(
    sample.text,
    whole.text.slice(0, Math.min(whole.text.indexOf(first), whole.text.indexOf(later))),
  );
});

test("echo, log-probabilities and the trace do not change the tokens", async () => {
  const request = { prompt: "The dog ", length: 24, n: 2 };
  const plain = await run(engine, request);
  const asked = await run(engine, { ...request, echo: true, logprobs: true, trace: true });
  assert.equal(asked.answer.receipt.trace_sha256, plain.answer.receipt.trace_sha256);
  assert.equal(plain.answer.trace, undefined);
  assert.deepEqual(asked.answer.trace, asked.steps);
  for (const [i, sample] of asked.answer.samples.entries()) {
    assert.equal(sample.text, `The dog ${plain.answer.samples[i]!.text}`);
    const reveals = asked.steps
      .filter((step) => step.sample === i)
      .flatMap(({ revealed }) => revealed)
      .sort((a, b) => a.position - b.position);
    assert.deepEqual(
      sample.logprobs,
      reveals.map(({ logprob }) => logprob),
    );
    assert.deepEqual(
      sample.tokens,
      reveals.map(({ token }) => token),
    );
  }
});

test("a step reports the mean entropy of the predictions it drew from", async () => {
  const { steps } = await run(engine, { prompt: "", length: 40, steps: 64 });
  for (const { entropy, revealed } of steps) {
    assert.equal(entropy === undefined, revealed.length === 0);
    if (entropy !== undefined) assert.ok(entropy >= 0 && entropy <= Math.log(4096));
  }
  // A single position with a single likely token has next to none; an empty canvas has much.
  assert.ok(steps.find(({ entropy }) => entropy !== undefined)!.entropy! > 3);
});

test("best_of scores every finished canvas and answers the best, which equal single requests", async () => {
  const { model } = guided;
  const request = { prompt: "ab", length: 12, seed: 9 };
  const all = await run(guided, { ...request, n: 6 });
  const ranked = await run(guided, { ...request, n: 3, best_of: 6 });
  const rewards = ranked.answer.samples.map(({ reward }) => reward!);
  assert.deepEqual(
    rewards,
    rewards.toSorted((a, b) => b - a),
  );
  assert.equal(rewards.length, 3);
  for (const { sample, tokens } of ranked.answer.samples)
    assert.deepEqual(tokens, all.answer.samples[sample]!.tokens);
  const { usage } = ranked.answer;
  assert.equal(usage.completion_tokens, 72);
  assert.equal(usage.discriminator_passes, all.answer.usage.discriminator_passes + 6);
  // The reward equals that of `score` on the whole canvas.
  const best = ranked.answer.samples[0]!;
  const tokens = Int32Array.from([...model.tokenizer.encode("ab", 99)!, ...best.tokens]);
  const padded = new Int32Array(32);
  padded.set(tokens);
  const { reward } = await guided.pool.run("score", {
    ...{ rows: 1, padded: 32, tokens: padded },
    ...{ length: Int32Array.of(tokens.length), sigma: new Float32Array(1) },
  });
  assert.equal(reward[0], best.reward);
  // All six alone, to see that no better one was dropped.
  const everyone = await run(guided, { ...request, n: 6, best_of: 6 });
  assert.deepEqual(
    everyone.answer.samples.slice(0, 3).map(({ reward }) => reward),
    rewards,
  );
  assert.notEqual(everyone.answer.receipt.trace_sha256, all.answer.receipt.trace_sha256);
});
