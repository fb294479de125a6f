/** `generate`: the command line as a request. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type GenerateConfig, requestOf } from "../../src/cli/commands/generate.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { didiHere } from "./support.ts";

const DEFAULTS = {
  ...{ model: "m", device: "cpu", precision: "auto", threads: 1 },
  ...{ steps: 16, topK: 0, topP: 1, order: "random", guidance: "none", n: 1 },
  ...{ logprobs: false, showSteps: false, json: false },
} satisfies GenerateConfig;

const RUN = ["--model", TINY_GUIDED, "--device", "cpu", "--threads", "1", "--length", "12", "--seed", "3"];

test("flags become the fields of the request", () => {
  const request = requestOf(["Once"], {
    ...DEFAULTS,
    ...{ n: 2, bestOf: 4, deadline: 500, stop: [".", "!"], logprobs: true, json: true, steps: "auto" },
  });
  assert.deepEqual(request, {
    ...{ prompt: "Once", n: 2, best_of: 4, deadline_ms: 500, stop: [".", "!"], logprobs: true },
    ...{ steps: "auto", top_k: 0, top_p: 1, order: "random", guidance: { mode: "none" } },
  });
});

test("a prompt with spans is a template", () => {
  const template = "The {{mask:4}} sat.";
  for (const request of [requestOf([template], DEFAULTS), requestOf([], { ...DEFAULTS, template })]) {
    assert.equal(request.template, template);
    assert.equal(request.prompt, undefined);
  }
});

const WRONG: [args: string[], says: RegExp][] = [
  [
    ["Once", "upon", "a", "time"],
    /the prompt is 4 arguments: put it in quotes, as in didi-serve generate "Once/,
  ],
  [[], /give a prompt.*or --template/],
  [["x", "--template", "a {{mask:2}}"], /--template has no effect beside a prompt/],
  [["x", "--logprobs"], /--logprobs has no effect without --json/],
  [["x", "--n", "17"], /--n <n>.*from 1 to 16/],
  [["x", "--steps", "auto", ...RUN], /\/deadline_ms: is required when steps is auto/],
  [["x", "--n", "3", "--best-of", "2", ...RUN], /\/best_of: must be at least n/],
];

for (const [args, says] of WRONG)
  test(`generate ${args.slice(0, 4).join(" ")}: one line, exit 2`, async () => {
    const { code, stderr } = await didiHere(["generate", ...args]);
    assert.equal(code, 2);
    assert.match(stderr, says);
    assert.match(stderr, /^didi-serve: [^\n]+\n$/);
  });

test("ranked samples are numbered, best first, with their rewards", async () => {
  const { code, stdout } = await didiHere(["generate", "Once", ...RUN, "--n", "2", "--best-of", "3"]);
  assert.equal(code, 0);
  const rewards = [...stdout.matchAll(/^\[(\d) of 2, reward (-?[\d.]+)\] Once/gm)].map(([, i, reward]) => [
    Number(i),
    Number(reward),
  ]);
  assert.deepEqual(
    rewards.map(([i]) => i),
    [1, 2],
  );
  assert.ok(rewards[0]![1]! >= rewards[1]![1]!);
});

test("a deadline that cut the request short is reported, and an early end is not", async () => {
  const long = ["generate", "", ...RUN.filter((_, i) => i < 6), "--length", "100", "--steps", "1024"];
  const cut = await didiHere([...long, "--deadline", "1"]);
  assert.match(cut.stderr, /^deadline: \d+ of 1024 steps ran, then one last pass\n$/);
  const whole = await didiHere([
    "generate",
    "The {{mask:4}} sat on {{mask:6}}.",
    ...RUN.slice(0, 6),
    "--n",
    "2",
  ]);
  assert.deepEqual([whole.code, whole.stderr], [0, ""]);
});
