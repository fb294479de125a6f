/** Choices: scores of options, decisions, and what is generated around them, on the shipped model. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { submitChosen } from "../../src/cli/start-engine.ts";
import type { StepEvent } from "../../src/engine/answers/step-emitter.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { parseTemplate } from "../../src/engine/template.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import { GOLDEN, startEngine } from "../support/engine.ts";

const engine = await startEngine();

const base = { steps: 4, seed: 7 };
const ask = (request: Partial<GenerateRequest>) => submitChosen(engine, { ...base, ...request });

for (const { template, scores } of GOLDEN.choices)
  test(`scores equal those of the PyTorch oracle: ${template}`, async () => {
    const { choices, combinations, samples, usage } = await ask({ template });
    const found = combinations?.map(({ logprob }) => logprob) ?? choices![0]!.options.map((o) => o.logprob);
    assert.equal(found.length, scores.length);
    for (const [i, score] of found.entries())
      assert.ok(Math.abs(score - scores[i]!) < 1e-3, `${i}: ${score} instead of ${scores[i]}`);
    const best = scores.indexOf(Math.max(...scores));
    const options = combinations?.[best]?.options ?? [best];
    assert.deepEqual(
      choices!.map(({ chosen }) => chosen),
      options,
    );
    for (const { options, chosen, text } of choices!) {
      assert.equal(options[chosen]!.text, text);
      assert.ok(Math.abs(options.reduce((sum, { probability }) => sum + probability, 0) - 1) < 1e-9);
      assert.ok(samples[0]!.text.includes(text));
    }
    assert.ok(usage.student_passes >= scores.length);
  });

test("without masks the answer is the text, and nothing is generated", async () => {
  const steps: StepEvent[] = [];
  const request = { ...base, template: "The {{choice:dog|spoon}} barked.", n: 2, logprobs: true };
  const answer = await submitChosen(engine, request, (step) => steps.push(step));
  assert.deepEqual(steps, []);
  const nothing = { text: "The dog barked.", tokens: [], spans: [], logprobs: [], finish_reason: "length" };
  assert.deepEqual(
    answer.samples,
    [0, 1].map((sample) => ({ sample, ...nothing })),
  );
  assert.deepEqual([answer.usage.completion_tokens, answer.usage.steps_done], [0, 0]);
  assert.equal(answer.cache, "miss");
});

test("scores are not cached, and have no steps that are reported", async () => {
  const cached = await startEngine({ cache: { maxBytes: 1e6, ttlMs: 60_000 } });
  const mask = cached.model.manifest.mask_token_id;
  const scored = [{ canvas: [mask, 5], position: 0, token: 7 }];
  const steps: StepEvent[] = [];
  const score = () => cached.submit({ ...base, scored }, (step) => steps.push(step)).result;
  const [first, second] = [await score(), await score()];
  assert.deepEqual([first.cache, second.cache, steps], ["miss", "miss", []]);
});

test("masks are filled around the choice that was made", async () => {
  const asked = await ask({ template: "The {{choice:dog|spoon}} barked{{mask:6}}." });
  const given = await ask({ template: "The dog barked{{mask:6}}." });
  assert.deepEqual(asked.samples[0]!.spans, given.samples[0]!.spans);
  assert.equal(asked.receipt.trace_sha256, given.receipt.trace_sha256);
});

test("an answer is computed again from its receipt, alone or beside others", async () => {
  const template = "One day {{choice}} saw a {{choice:cat|red ball}}{{mask:5}} and {{choice:ran|sat}}.";
  const request = { template, choices: [["Tom", "a|b", "{x}"]], choose: "draw" as const };
  const answer = await ask(request);
  assert.equal(answer.combinations!.length, 12);
  const { receipt } = answer;
  assert.deepEqual(
    [receipt.request.template, receipt.request.choices, receipt.request.choose, receipt.request.tokens],
    [template, request.choices, "draw", undefined],
  );
  const others = Array.from({ length: 8 }, (_, seed) => ask({ ...request, seed: 100 + seed }));
  const again = await submitChosen(engine, receipt.request as GenerateRequest);
  assert.deepEqual([again.receipt, again.choices], [receipt, answer.choices]);
  await Promise.all(others);
});

test("a drawn option depends on the seed, and is drawn by its probability", async () => {
  const counts = [0, 0];
  let probability = 0;
  const likeliest = new Set<string>();
  const template = "One day, {{choice:Tom|Lily}} was happy.";
  for (let seed = 0; seed < 60; seed++) {
    const { choices } = await ask({ template, choose: "draw", seed });
    counts[choices![0]!.chosen]!++;
    probability = choices![0]!.options[0]!.probability;
    if (seed < 8) likeliest.add((await ask({ template, seed })).choices![0]!.text);
  }
  assert.equal(likeliest.size, 1);
  const expected = 60 * probability;
  const deviation = Math.sqrt(60 * probability * (1 - probability));
  assert.ok(counts[0]! > 0 && counts[1]! > 0, `${counts}`);
  assert.ok(Math.abs(counts[0]! - expected) < 3.3 * deviation, `${counts[0]} instead of ${expected}`);
});

test("too many combinations are decided from left to right", async () => {
  const nine = "a|b|c|d|e|f|g|h|one";
  const template = `He had {{choice:${nine}}} dog and {{choice:${nine.replace("|b", "|two")}}} cat.`;
  const { combinations, choices, samples } = await ask({ template });
  assert.equal(combinations, undefined);
  const [first, second] = choices!;
  // The second one is scored with the first one filled in.
  const alone = await ask({ template: template.replace(/\{\{choice:[^}]*\}\}/, first!.text) });
  assert.deepEqual(alone.choices![0], second);
  assert.equal(samples[0]!.text, `He had ${first!.text} dog and ${second!.text} cat.`);
});

test("choices are decided jointly up to 64 combinations and 1,024 scored tokens", async () => {
  const eight = "a|b|c|d|e|f|g|h";
  const joint = await ask({ template: `He had {{choice:${eight}}} dog and {{choice:${eight}}} cat.` });
  assert.equal(joint.combinations!.length, 64);
  const long = eight.replace("h", "h and then he had one more big dog");
  const inTurn = await ask({ template: `He had {{choice:${long}}} and {{choice:${long}}}.` });
  assert.equal(inTurn.combinations, undefined);
  const hashes = [joint, inTurn].map(({ receipt }) => receipt.choices_sha256!);
  assert.ok(hashes.every((hash) => /^[0-9a-f]{64}$/.test(hash)) && hashes[0] !== hashes[1], `${hashes}`);
});

test("a choice of its own has no combinations, and the likeliest option needs no seed", async () => {
  const answer = await ask({ template: "The {{choice:dog|spoon}} barked.", seed: undefined });
  assert.equal(answer.choices![0]!.text, "dog");
  assert.equal(answer.combinations, undefined);
});

test("a space before a choice is tokenised with its options; the text stays as it is written", () => {
  assert.deepEqual(parseTemplate("A {{choice:b|c}} d"), [
    { text: "A" },
    {
      options: [
        { text: "b", inserted: " b" },
        { text: "c", inserted: " c" },
      ],
    },
    { text: " d" },
  ]);
  assert.deepEqual(parseTemplate(" {{choice: b|c}}{{mask:2}}").slice(0, 1), [{ text: " " }]);
});

/** 60 options of more than 20 tokens. */
const MANY = Array.from({ length: 60 }, (_, i) => `${"b ".repeat(20)}${i}`).join("|");
const REFUSED: [Partial<GenerateRequest>, string, RegExp][] = [
  [{ template: "{{choice:a}}" }, "/template", /choice of 1 options, and needs 2 to 64/],
  [{ template: "{{choice:a|}}" }, "/template", /empty option/],
  [{ template: "{{choice:a|a}}" }, "/template", /two equal options/],
  [{ template: "{{choice:a|{b}}}" }, "/template", /is not a span/],
  [{ template: "{{choice}}" }, "/choices/0", /is missing/],
  [{ template: "{{choice:a|b}}", choices: [["a", "b"]] }, "/choices/0", /belongs to no span/],
  [{ template: "{{mask:2}}", choose: "draw" }, "/choose", /without a \{\{choice\}\} span/],
  [{ prompt: "a", choices: [["a", "b"]] }, "/choices", /without a \{\{choice\}\} span/],
  [{ template: "{{choice:a|b}}", choose: "draw", seed: undefined }, "/seed", /a drawn choice needs one/],
  [{ template: "{{choice:a|b}}", best_of: 2 }, "/best_of", /nothing is generated/],
  [{ template: `{{choice:a|${"b ".repeat(900)}}}{{mask:8}}` }, "/template", /shorten it/],
  [{ template: `{{choice:a|${"b ".repeat(150)}}}{{mask:200}}` }, "/template", /256/],
  [{ template: `{{choice:${MANY}}}` }, "/template", /options of more than 1024 tokens: shorten them/],
  [{ template: "{{choice:a|b}}{{mask:2}}", threshold: 1 }, "/threshold", /order spread/],
];
for (const [request, path, message] of REFUSED)
  test(`refuses ${JSON.stringify(request).slice(0, 60)} before anything is scored`, async () => {
    let batches = 0;
    const count = () => batches++;
    engine.on("batch", count);
    await assert.rejects(ask(request), (error) => {
      assert.ok(error instanceof InvalidRequestError, String(error));
      assert.equal(error.fields[0]!.path, path);
      assert.match(error.fields[0]!.message, message);
      return true;
    });
    engine.off("batch", count);
    assert.equal(batches, 0);
  });
