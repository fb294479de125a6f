/** Rows of a model, and results as they compare. */

import { after } from "node:test";
import { promptCanvas } from "../../src/diffusion/canvas.ts";
import { Sample } from "../../src/diffusion/sampler.ts";
import { type Model, openModel } from "../../src/model/model.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import type { DenoiseResult } from "../../src/runtime/protocol.ts";
import { MODEL } from "../support/engine.ts";

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

/** Open the shipped model and start a worker, which ends after the file's tests. */
export async function startPool(): Promise<{ model: Model; pool: WorkerPool }> {
  const model = await openModel(MODEL);
  const pool = await WorkerPool.start({ graphs: model.graphs, device: "cpu", threads: 1 });
  after(() => pool.close());
  return { model, pool };
}

/** Return a result with plain arrays, which `deepEqual` compares. */
export const plain = ({ token, logprob, entropy }: DenoiseResult) => ({
  token: [...token],
  logprob: [...logprob],
  entropy: [...entropy],
});
