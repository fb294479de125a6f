/** The modules of the playground that need no browser. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { validator } from "../../src/server/openapi.ts";
import { figuresOf, statusOf } from "../../web/charts/figures.js";
import { generateMessage, piecesOf } from "../../web/form/request.js";
import { DEFAULTS, fromHash, toHash } from "../../web/form/settings.js";
import { brief, inkOf, percent, shadeOf } from "../../web/format.js";
import { sortedQuality } from "../../web/model-info.js";
import { Run, tokenAt } from "../../web/run/run.js";

const SETTINGS = {
  model: "a+b",
  prompt: "One & two = {{mask:3}} #3\nend",
  length: 12,
  temperature: 0.35,
  seed: Number.MAX_SAFE_INTEGER,
  runs: [
    { steps: 4, guided: false, remask: 0.05 },
    {
      steps: 128,
      guided: true,
      guidance: { scale: [0, 2.5] as [number, number], candidates: 8, rerank_ratio: 0.25 },
    },
  ],
};

test("a link restores the settings it was created from", () => {
  assert.deepEqual(fromHash(`#${toHash(SETTINGS)}`), { settings: SETTINGS, run: false });
  const one = { ...SETTINGS, prompt: "", runs: [{ steps: 1, guided: true }] };
  assert.deepEqual(fromHash(toHash(one, { run: true })), { settings: one, run: true });
});

test("missing and invalid settings of a link get their defaults", () => {
  assert.deepEqual(fromHash(""), { settings: DEFAULTS, run: false });
  const bad = "steps=129&length=0&temperature=2.5&seed=-1&guided=yes&run=0&unknown=1";
  assert.deepEqual(fromHash(bad), { settings: DEFAULTS, run: false });
  assert.deepEqual(fromHash("scaleFirst=1&candidates=0&rerank=2").settings, DEFAULTS);
  assert.deepEqual(fromHash("steps=1.5&length=&temperature=x&seed=9007199254740993").settings, DEFAULTS);
});

test("masks follow a prompt, and stand in the spans of a template", () => {
  assert.deepEqual(piecesOf({ prompt: "Once", length: 5 }), [{ text: "Once" }, { masks: 5 }]);
  assert.deepEqual(piecesOf({ prompt: "{{mask:2}} and {{mask:30}}{{mask:1}}.", length: 5 }), [
    { masks: 2 },
    { text: " and " },
    { masks: 30 },
    { masks: 1 },
    { text: "." },
  ]);
  assert.deepEqual(piecesOf({ prompt: "{{mask}} {{mask:x}}", length: 1 }), [
    { text: "{{mask}} {{mask:x}}" },
    { masks: 1 },
  ]);
});

test("messages fit the contract; a template is sent without a length", () => {
  const check = validator("GenerateMessage");
  const message = generateMessage("1", { ...SETTINGS, prompt: "Once" }, { steps: 8, guided: true });
  assert.ok("value" in check(structuredClone(message)));
  assert.deepEqual(message.guidance, { mode: "rgas" });
  const tuned = generateMessage("1", SETTINGS, SETTINGS.runs[1]!);
  assert.ok("value" in check(structuredClone(tuned)));
  assert.deepEqual(tuned.guidance, { mode: "rgas", scale: [0, 2.5], candidates: 8, rerank_ratio: 0.25 });
  assert.deepEqual(generateMessage("1", SETTINGS, { steps: 8, guided: false }), {
    type: "generate",
    id: "1",
    model: SETTINGS.model,
    template: SETTINGS.prompt,
    steps: 8,
    temperature: SETTINGS.temperature,
    seed: SETTINGS.seed,
  });
  const { temperature: _, ...open } = SETTINGS;
  assert.equal("temperature" in generateMessage("1", open, SETTINGS.runs[0]!), false);
  assert.deepEqual(fromHash(toHash(open)).settings, open);
  const correcting = generateMessage("1", SETTINGS, SETTINGS.runs[0]!);
  assert.ok("value" in check(structuredClone(correcting)));
  assert.deepEqual(correcting.remask, { mode: "confidence", rate: 0.05 });
});

const step = (number: number, masked: number, revealed: [position: number, logprob: number][]) =>
  ({
    type: "step",
    id: "1",
    sample: 0,
    step: number,
    steps: 2,
    t: 1,
    masked,
    text: "",
    revealed: revealed.map(([position, logprob]) => ({ position, logprob, token: position, text: " a" })),
  }) as const;

test("a run stores the reveals of each step by their index among the masks", () => {
  const run = new Run("1", piecesOf({ prompt: "{{mask:1}} b {{mask:2}}", length: 1 }), 2);
  assert.equal(statusOf(run, 0), "waiting for the server");
  const spans = [
    { start: 0, length: 1 },
    { start: 4, length: 2 },
  ];
  run.apply({ type: "accepted", id: "1", seed: 7, spans });
  run.apply(
    step(1, 1, [
      [0, -1],
      [5, -3],
    ]),
  );
  assert.deepEqual([run.state, run.reached, run.over], ["running", 1, false]);
  assert.deepEqual(
    run.cells.map((cell) => cell.map(({ position, step }) => [position, step])),
    [[[0, 1]], [], [[5, 1]]],
  );
  run.apply({ ...step(2, 1, []), entropy: 0.5 } as Parameters<Run["apply"]>[0]);
  assert.deepEqual(
    run.figures.map(({ masked, surprisal, entropy }) => [masked, surprisal, entropy]),
    [
      [1, 2, undefined],
      [1, undefined, 0.5],
    ],
  );
  assert.equal(statusOf(run, 1), "step 1 of 2");
  run.apply({ ...step(3, 1, [[5, -2]]), remasked: [0] });
  const shown = [0, 1, 2, 3].map((at) => run.cells.map((cell) => tokenAt(cell, at)?.step));
  assert.deepEqual(shown, [
    [undefined, undefined, undefined],
    [1, undefined, 1],
    [1, undefined, 1],
    [undefined, undefined, 3],
  ]);
});

test("a run ends as cancelled or failed by the server's error", () => {
  const error = { title: "Title", status: 499, detail: "Detail." };
  const cancelled = new Run("1", [{ masks: 1 }], 2);
  cancelled.apply({
    type: "error",
    id: "1",
    error: { ...error, type: "urn:didi-serve:problem:cancelled" },
  });
  assert.deepEqual([cancelled.state, cancelled.over, cancelled.failure], ["cancelled", true, undefined]);
  const failed = new Run("1", [{ masks: 1 }], 2);
  failed.apply({ type: "error", id: "1", error: { ...error, type: "urn:didi-serve:problem:internal" } });
  assert.deepEqual([failed.state, failed.failure], ["failed", { title: "Title", detail: "Detail." }]);
  assert.equal(statusOf(failed, 0), "failed");
  assert.equal(figuresOf(failed).speed, "–");
});

test("numbers and tokens are formatted", () => {
  assert.deepEqual([0, 60, 1234.5, 12.34, 0.126].map(brief), ["0", "60", "1,235", "12.3", "0.13"]);
  assert.deepEqual([0, Math.log(0.0123), -20].map(percent), ["100%", "1.23%", "below 0.01%"]);
  assert.deepEqual([0, Math.log(0.3), -99].map(shadeOf), [0, 2, 6]);
  assert.deepEqual(inkOf(" girl\n"), [" ", "girl", "\n"]);
  assert.deepEqual(inkOf("\n"), ["", "↵", "\n"]);
  assert.deepEqual(inkOf("  "), ["", "␣", "  "]);
});

test("the table of measured quality is sorted by sampler and steps, the plain sampler first", () => {
  const of = (sampler: "plain" | "rgas", steps: number) =>
    ({ sampler, steps, generative_perplexity: 1, entropy: 1 }) as Parameters<typeof sortedQuality>[0][number];
  assert.deepEqual(
    sortedQuality([of("rgas", 8), of("plain", 16), of("plain", 4), of("rgas", 4)]).map(
      ({ sampler, steps }) => `${sampler} ${steps}`,
    ),
    ["plain 4", "plain 16", "rgas 4", "rgas 8"],
  );
});
