/** Requests that mask revealed tokens again, on the shipped model. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateRequest } from "../../src/engine/request.ts";
import type { Schemas } from "../../src/server/openapi.ts";
import { Outbox, type ServerEvent } from "../../src/server/streaming/outbox.ts";
import { assertRefused, startEngine, TINY_GUIDED } from "../support/engine.ts";

const engine = await startEngine();
const guided = await startEngine({}, TINY_GUIDED);

const remask = { mode: "confidence" as const, rate: 0.1 };
const base = { prompt: "Once upon a time", length: 48, steps: 16, seed: 4, remask };

type Step = Schemas["StepEvent"];

/** Run a request; return its answer, and its steps with what is settled after each. */
async function run(request: Partial<GenerateRequest>) {
  const steps: Step[] = [];
  const settled: string[] = [];
  const handle = engine.submit({ ...base, ...request }, (step, text) => {
    steps.push({ type: "step", id: "g", ...step });
    settled.push(text());
  });
  return { answer: await handle.result, spans: handle.spans, steps, settled };
}

/** Return the canvas that events give, by position. */
function assemble(steps: readonly Step[]): Map<number, number> {
  const canvas = new Map<number, number>();
  for (const { revealed, remasked } of steps) {
    for (const position of remasked ?? []) canvas.delete(position);
    for (const { position, token } of revealed) canvas.set(position, token);
  }
  return canvas;
}

const inOrder = (canvas: Map<number, number>) =>
  [...canvas].sort(([a], [b]) => a - b).map(([, token]) => token);

const VARIANTS: Partial<GenerateRequest>[] = [
  {},
  { order: "confidence", remask: { mode: "random", rate: 0.2, from: 0.2, to: 0.7 } },
  { block_length: 12 },
  { prompt: undefined, length: undefined, template: "One day {{mask:20}} and then {{mask:16}}." },
];

for (const [i, request] of VARIANTS.entries())
  test(`events, receipt, cost and settled text agree, ${JSON.stringify(request)}`, async () => {
    const { answer, steps, settled } = await run(request);
    const sample = answer.samples[0]!;
    const again = steps.reduce((sum, { remasked }) => sum + remasked!.length, 0);
    assert.ok(again > 0);
    assert.deepEqual(inOrder(assemble(steps)), sample.tokens);
    assert.equal(answer.usage.completion_tokens, sample.tokens.length + again);
    assert.equal(settled.at(-1), sample.text);
    const known = (text: string) => text.replace(/░.*$/su, "");
    for (const [k, text] of settled.entries()) {
      assert.ok(settled.slice(k).every((later) => later.startsWith(known(text))));
      assert.equal(steps[k]!.text.length > 0, true);
    }
    // Without blocks nothing is settled before the last step that masks; with blocks each one is in its turn.
    if (i === 2) assert.ok(new Set(steps.map(({ settled }) => settled)).size >= 4);
    const { cost } = engine.check({ ...base, ...request });
    assert.ok(answer.usage.student_passes * 64 <= cost);

    const repeated = await engine.submit(answer.receipt.request as GenerateRequest).result;
    assert.deepEqual(repeated.receipt, answer.receipt);
  });

test("more steps than tokens each run, and are charged", async () => {
  const { answer } = await run({ length: 4, steps: 64, remask: { mode: "random", rate: 1 } });
  assert.ok(answer.usage.student_passes > 4);
  const { cost } = engine.check({ ...base, length: 4, steps: 64 });
  assert.ok(cost >= 64 * 32);
});

test("an early stop waits until the text before it can no longer change", async () => {
  for (let seed = 0; seed < 4; seed++) {
    const { answer: whole } = await run({ seed, block_length: 8 });
    const stop = whole.samples[0]!.text.slice(6, 9);
    const full = (await run({ seed, block_length: 8, stop })).answer;
    const early = await run({ seed, block_length: 8, stop, early_stop: true });
    const [expected, sample] = [full.samples[0]!, early.answer.samples[0]!];
    assert.deepEqual([sample.text, sample.finish_reason], [expected.text, "stop"]);
    assert.deepEqual(sample.tokens, expected.tokens.slice(0, sample.tokens.length));
    assert.ok(early.answer.usage.student_passes < full.usage.student_passes);
  }
});

test("merged events of a slow reader assemble to the same canvas at each of them", async () => {
  const { steps, answer } = await run({ steps: 40, remask: { mode: "random", rate: 0.3 } });
  for (const every of [3, 7, 40]) {
    const written: ServerEvent[] = [];
    const sink = { open: true, waiting: 0, write: (event: ServerEvent) => void written.push(event) };
    const outbox = new Outbox(sink);
    for (const [k, step] of steps.entries()) {
      sink.waiting = (k + 1) % every === 0 ? 0 : 1e9;
      outbox.send(step);
    }
    // Sends what is held.
    sink.waiting = 0;
    outbox.send({ type: "error", id: "g", error: { type: "", title: "", status: 500, detail: "" } });
    const received = written.flatMap((event) => (event.type === "step" ? [event] : []));
    assert.ok(received.length < steps.length);
    for (const [k, { step, masked, revealed, remasked }] of received.entries()) {
      const so = assemble(received.slice(0, k + 1));
      assert.deepEqual(so, assemble(steps.filter((one) => one.step <= step)));
      assert.equal(masked, 48 - so.size);
      const changed = [...revealed.map(({ position }) => position), ...remasked!];
      assert.equal(new Set(changed).size, changed.length);
    }
    assert.deepEqual(inOrder(assemble(received)), answer.samples[0]!.tokens);
  }
});

const REFUSED: [Partial<GenerateRequest>, string, RegExp][] = [
  [{ order: "confidence", threshold: 0.5 }, "/remask", /beside threshold, which ends/],
  [{ order: "entropy", entropy_budget: 1 }, "/remask", /beside entropy_budget, which ends/],
  [{ remask: { ...remask, from: 0.6, to: 0.5 } }, "/remask/from", /below \/remask\/to, which is 0.5/],
  [{ guidance: { mode: "rgas" } }, "/remask", /beside guidance/],
];
for (const [request, path, message] of REFUSED)
  test(`refuses ${JSON.stringify(request)}`, () =>
    assertRefused(guided, { ...base, ...request }, path, message));
