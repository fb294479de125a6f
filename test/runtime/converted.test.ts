/** A converted checkpoint with both quirks of the reference: its graphs take sigma and mask_bias. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { promptCanvas } from "../../src/diffusion/canvas.ts";
import { Sample } from "../../src/diffusion/sampler.ts";
import { denoiseInput } from "../../src/engine/scheduling/batch.ts";
import { type Model, openModel } from "../../src/model/model.ts";
import type { PrecisionChoice } from "../../src/model/precision.ts";
import type { DenoiseInput, DenoiseResult } from "../../src/runtime/protocol.ts";
import { loadModel } from "../../src/runtime/worker/session.ts";
import { serve } from "../server/support.ts";
import { TINY_STUDENT } from "../support/engine.ts";
import { post } from "../support/http.ts";

const { engine, origin } = await serve({}, TINY_STUDENT);

test("the server answers /generate with it, equally for the same seed", async () => {
  const generate = async (seed: number) => {
    const response = await post(`${origin}/generate`, { prompt: "Hello", length: 40, steps: 8, seed });
    assert.equal(response.status, 200, await response.clone().text());
    return (await response.json()) as { samples: { tokens: number[]; text: string }[] };
  };
  const [first, again, other] = [await generate(1), await generate(1), await generate(2)];
  assert.deepEqual(again.samples, first.samples);
  assert.notDeepEqual(other.samples, first.samples);
  const [sample] = first.samples;
  assert.equal(sample!.tokens.length, 40);
  assert.ok(!sample!.text.includes("░"));
});

/** Return a batch that draws 64 tokens at each of 16 positions. */
function drawMany(model: Model): DenoiseInput {
  const { mask_token_id } = model.manifest;
  const draw = { temperature: 1, topK: 0, topP: 1, order: "random" as const };
  const sample = new Sample(
    { canvas: promptCanvas([1, 2, 3], 16, mask_token_id), steps: 1, seed: 5, sample: 0, ...draw },
    model.schedule,
    mask_token_id,
  );
  const batch = denoiseInput([{ padded: 32, sample, plan: sample.plan() }]);
  const count = 64 * batch.draws.length;
  return {
    ...batch,
    draws: Int32Array.from({ length: count }, (_, i) => i >> 6),
    uniform: Float32Array.from({ length: count }, (_, i) => ((i & 63) + 0.5) / 64),
    temperature: new Float32Array(count).fill(1),
    topK: new Int32Array(count),
    topP: new Float32Array(count).fill(1),
  };
}

async function run(precision: PrecisionChoice, change: Partial<DenoiseInput> = {}): Promise<DenoiseResult> {
  const model = await openModel(TINY_STUDENT, precision);
  const loaded = await loadModel({ graphs: model.graphs, device: "cpu", threads: 1 });
  const result = await loaded.run({ graph: "denoise", input: { ...drawMany(model), ...change } });
  return result as DenoiseResult;
}

test("batches feed both inputs: sigma changes the distribution, and the bias excludes the mask", async () => {
  const { mask_token_id } = engine.model.manifest;
  const plain = await run("fp32");
  assert.ok(!plain.token.includes(mask_token_id));
  const noisy = await run("fp32", { sigma: Float32Array.of(3) });
  assert.notDeepEqual([...noisy.entropy], [...plain.entropy]);
  const kept = await run("fp32", { maskBias: Float32Array.of(20) });
  assert.ok(kept.token.every((id) => id === mask_token_id));
});

test("top-k and top-p apply to their own draws only", async () => {
  const count = (await run("fp32")).token.length;
  const alternating = <T>(cut: T, whole: T) => Array.from({ length: count }, (_, i) => (i % 2 ? whole : cut));
  const plain = await run("fp32");
  const distinct = (result: DenoiseResult) => new Set(result.token.filter((_, i) => i % 2 === 0)).size;
  for (const change of [
    { topK: Int32Array.from(alternating(1, 0)) },
    { topP: Float32Array.from(alternating(1e-6, 1)) },
  ]) {
    const cut = await run("fp32", change);
    assert.ok(distinct(cut) <= 16, "one token for each of 16 positions");
    assert.ok(distinct(plain) > 16);
    for (let i = 1; i < count; i += 2) assert.equal(cut.token[i], plain.token[i]);
  }
});

test("log-probabilities in fp16 are within 0.01 of those in fp32", async () => {
  const [full, half] = [await run("fp32"), await run("fp16")];
  assert.notDeepEqual([...half.logprob], [...full.logprob]);
  const same = [...full.token.keys()].filter((i) => full.token[i] === half.token[i]);
  assert.ok(same.length > 0.95 * full.token.length, `${same.length} of ${full.token.length}`);
  for (const i of same) assert.ok(Math.abs(full.logprob[i]! - half.logprob[i]!) < 0.01);
});
