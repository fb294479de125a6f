/** What a request is turned into: defaults, the step budget, and bounds that depend on the model. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Budget } from "../../src/engine/budget.ts";
import { prepare } from "../../src/engine/prepare.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import type { Manifest } from "../../src/model/manifest.ts";
import { openModel } from "../../src/model/model.ts";
import { TINY_GUIDED } from "../support/engine.ts";

const model = await openModel(TINY_GUIDED, "fp32");
const base = { prompt: "", length: 64, steps: 8 };

/** Return the model with other fields in its manifest. */
const modelWith = (fields: Partial<Manifest>) =>
  Object.assign(Object.create(Object.getPrototypeOf(model)), model, {
    manifest: { ...model.manifest, ...fields },
  }) as typeof model;

const prepared = (request: Partial<GenerateRequest>, of = model) =>
  prepare(of, { ...base, ...request } as GenerateRequest, () => 0);

function assertRefused(request: Partial<GenerateRequest>, path: string, of = model) {
  assert.throws(
    () => prepared(request, of),
    (error) => error instanceof InvalidRequestError && error.fields[0]!.path === path,
    `${JSON.stringify(request)} is not refused at ${path}`,
  );
}

test("fields that are absent have their defaults", () => {
  const { params, output, deadlineMs } = prepared({});
  const { canvas, seed, ...rest } = params;
  assert.equal(canvas.length, 64);
  assert.ok(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 48);
  assert.notEqual(seed, prepared({}).params.seed);
  const unset = {
    threshold: undefined,
    entropyBudget: undefined,
    blockLength: undefined,
    earlyStop: undefined,
  };
  assert.deepEqual(rest, {
    ...{ steps: 8, temperature: 1, topK: 0, topP: 1, order: "random", ...unset },
    ...{ samples: 1, ranked: false, guidance: undefined },
  });
  const { layout: _, ...shown } = output;
  assert.deepEqual(shown, { n: 1, stop: [], pastEnd: false, echo: false, logprobs: false, trace: false });
  assert.equal(deadlineMs, undefined);
});

test("what a request does not name is the model's own", () => {
  const own = { order: "spread", temperature: 1.5, top_k: 9, top_p: 0.5 } as const;
  const drawn = (request: Partial<GenerateRequest>, defaults: Manifest["defaults"] = own) => {
    const { order, temperature, topK, topP } = prepared(request, modelWith({ defaults })).params;
    return { order, temperature, top_k: topK, top_p: topP };
  };
  assert.deepEqual(drawn({}), own);
  assert.deepEqual(drawn({}, { top_p: 0.5 }), { order: "random", temperature: 1, top_k: 0, top_p: 0.5 });
  const plain = { order: "spread", temperature: 1, top_k: 0, top_p: 1 } as const;
  assert.deepEqual(drawn({ order: "random" }), { ...own, order: "random" });
  for (const named of [{ temperature: 0.8 }, { temperature: 1 }, { top_k: 3 }, { top_p: 0.9 }])
    assert.deepEqual(drawn(named), { ...plain, ...named });
  assert.deepEqual(drawn({ guidance: { mode: "rgas" } }), own);
});

test("a guided request takes the model's temperature unless it has its own", () => {
  const cool = modelWith({ guidance: { ...model.manifest.guidance!, temperature: 0.9 } });
  const temperature = (request: Partial<GenerateRequest>) => prepared(request, cool).params.temperature;
  const guidance = { mode: "rgas" as const };
  assert.equal(temperature({ guidance }), 0.9);
  assert.equal(temperature({ guidance, temperature: 0.5 }), 0.5);
  assert.equal(temperature({}), 1);
  assert.equal(temperature({ guidance: { mode: "none" } }), 1);
});

test("a trace holds at most 2^18 tokens, and a text counts at least 64", () => {
  const trace = { trace: true, steps: 1024 };
  for (const length of [64, 8]) {
    assert.equal(prepared({ ...trace, length, n: 4 }).output.trace, true);
    assertRefused({ ...trace, length, n: 5 }, "/trace");
    prepared({ ...trace, length, n: 5, trace: false });
  }
  assertRefused({ ...trace, length: 65, n: 4 }, "/trace");
});

test("the most likely tokens are returned with log-probabilities, and are fewer than the model has", () => {
  const most = model.manifest.mask_token_id - 1;
  const { params } = prepared({ logprobs: true, top_logprobs: most });
  assert.equal(params.topLogprobs, most);
  assertRefused({ logprobs: true, top_logprobs: most + 1 }, "/top_logprobs");
  assertRefused({ top_logprobs: 1 }, "/top_logprobs");
  assertRefused({ logprobs: true, top_logprobs: 1, guidance: { mode: "smc" } }, "/top_logprobs");
  assert.equal("topLogprobs" in prepared({ logprobs: true, top_logprobs: 0 }).params, false);
});

test("steps auto needs a deadline or a measured quality, and nothing else is given one", () => {
  const unmeasured = modelWith({ quality: [] });
  assertRefused({ steps: "auto" }, "/deadline_ms");
  assertRefused({ steps: 8, quality: "best" }, "/quality");
  assertRefused({ steps: "auto", quality: "best" }, "/quality", unmeasured);
  assertRefused({ steps: "auto", deadline_ms: 100, guidance: { mode: "smc" } }, "/steps");
});

test("steps auto may choose guidance only where the request leaves it open and its order can be guided", () => {
  const cell = (sampler: "plain" | "rgas", steps: number, generative_perplexity: number) => ({
    ...{ sampler, steps, generative_perplexity, entropy: 4 },
  });
  const measured = modelWith({ quality: [cell("plain", 8, 50), cell("plain", 32, 30), cell("rgas", 8, 20)] });
  const auto = { steps: "auto" as const, deadline_ms: 1000, seed: 1 };
  const cases: [Partial<GenerateRequest>, number, boolean][] = [
    [{}, 8, true],
    [{ guidance: { mode: "none" } }, 32, false],
    [{ guidance: { mode: "rgas" } }, 8, true],
    [{ order: "confidence" }, 32, false],
    [{ block_length: 32 }, 32, false],
    [{ remask: { mode: "random", rate: 0.1 } }, 32, false],
  ];
  for (const [request, steps, guided] of cases) {
    const asked: [Budget, number, number][] = [];
    const { params } = prepare(measured, { ...base, ...auto, n: 2, ...request }, (...work) => {
      asked.push(work);
      return 0;
    });
    const name = JSON.stringify(request);
    assert.deepEqual([params.steps, params.guidance !== undefined], [steps, guided], name);
    assert.equal(params.rewards !== undefined, guided, name);
    assert.ok(asked.every(([, samples, length]) => samples === 2 && length === 64));
  }
  // A quality takes the fewest steps that are near the best of the sampler that was asked for.
  assert.equal(prepared({ steps: "auto", quality: "best" }, measured).params.steps, 32);
  assert.equal(prepared({ steps: "auto", quality: "draft" }, measured).params.steps, 8);
  const guidance = { mode: "rgas" as const };
  assert.equal(prepared({ steps: "auto", quality: "best", guidance }, measured).params.steps, 8);
});

test("scored tokens are one step each, and are no mask", () => {
  const { mask_token_id: mask } = model.manifest;
  const row = { canvas: [1, mask], position: 1, token: 2 };
  const { params, output } = prepared({ scored: [row, row], top_logprobs: 3 });
  assert.deepEqual([params.samples, params.steps, params.temperature], [2, 1, 1]);
  assert.deepEqual([params.canvas, params.topLogprobs, params.ranked], [[1, mask], 3, false]);
  assert.equal(output.n, 0);
  assertRefused({ scored: [row, { ...row, token: mask }] }, "/prompt_tokens/1");
});

test("best_of ranks samples, of which n are answered", () => {
  const { params, output } = prepared({ n: 2, best_of: 3 });
  assert.deepEqual([params.samples, params.ranked, output.n], [3, true, 2]);
  assert.deepEqual(params.rankBy, { discriminator: 1 });
  assert.equal(prepared({ n: 2, best_of: 2 }).params.samples, 2);
  assertRefused({ n: 2, best_of: 1 }, "/best_of");
  assertRefused({ rank_by: { discriminator: 1 } }, "/rank_by");
  const { guidance: _, ...unguided } = model.manifest;
  const plain = Object.assign(Object.create(Object.getPrototypeOf(model)), model, { manifest: unguided });
  assertRefused({ best_of: 2 }, "/best_of", plain);
  assertRefused({ best_of: 2, early_stop: true }, "/early_stop");
});

test("stop strings are a list, at which sampling ends only with early_stop", () => {
  const stops = (request: Partial<GenerateRequest>) => {
    const { params, output } = prepared(request);
    return [output.stop, params.earlyStop];
  };
  assert.deepEqual(stops({ stop: "a" }), [["a"], undefined]);
  assert.deepEqual(stops({ stop: ["a", "b"], early_stop: true }), [
    ["a", "b"],
    ["a", "b"],
  ]);
  assert.deepEqual(stops({ early_stop: true }), [[], []]);
});

test("a prompt can be echoed, and a template cannot; particles are passed on", () => {
  assert.equal(prepared({ echo: true }).output.echo, true);
  const template = { prompt: undefined, length: undefined, template: "a{{mask:4}}" };
  assertRefused({ ...template, echo: true }, "/echo");
  assert.equal(prepared(template).output.layout.continues, false);
  assert.deepEqual(prepared({ guidance: { mode: "smc" } }).params.smc, { particles: 4, resampleBelow: 0.5 });
  assert.equal("smc" in prepared({}).params, false);
});
