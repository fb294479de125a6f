/** Rows of a model, and results as they compare. */

import { promptCanvas } from "../../src/diffusion/canvas.ts";
import { Sample } from "../../src/diffusion/sampler.ts";
import type { Model } from "../../src/model/model.ts";
import type { DenoiseResult } from "../../src/runtime/protocol.ts";

/** Return `count` rows of different canvases at their first step, padded to `padded` tokens. */
export function rowsOf(model: Model, count: number, padded = 96) {
  return Array.from({ length: count }, (_, i) => {
    const draw = { temperature: 1, topK: 0, topP: 1, order: "random" as const };
    const canvas = promptCanvas([5, 6, 7 + i], 70 + i, model.manifest.mask_token_id);
    const params = { canvas, steps: 4, seed: 40 + i, sample: 0, ...draw };
    const sample = new Sample(params, model.schedule, model.manifest.mask_token_id);
    return { padded, sample, plan: sample.plan() };
  });
}

/** Return a result with plain arrays, which `deepEqual` compares. */
export const plain = ({ token, logprob, entropy }: DenoiseResult) => ({
  token: [...token],
  logprob: [...logprob],
  entropy: [...entropy],
});
