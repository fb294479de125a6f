/** The loop of the sampler around `denoise`, without queue, worker and HTTP. */

import { promptCanvas } from "../../src/diffusion/canvas.ts";
import { Sample } from "../../src/diffusion/sampler.ts";
import { isEmpty } from "../../src/diffusion/step.ts";
import { denoiseInput, splitDraws } from "../../src/engine/scheduling/batch.ts";
import { paddedLength } from "../../src/engine/scheduling/scheduler.ts";
import { defaultsOf } from "../../src/model/manifest.ts";
import type { Model } from "../../src/model/model.ts";
import type { DenoiseResult } from "../../src/runtime/protocol.ts";
import type { LoadedModel } from "../../src/runtime/worker/session.ts";

/** The samples to run; `keys` holds the seed and the index of each. */
export interface LoopJob {
  keys: readonly { seed: number; sample: number }[];
  length: number;
  steps: number;
}

/**
 * Run the samples to their end, drawn as by default, one batch a step, with or without two optimisations of the
 * server.
 */
export async function runLoop(
  { manifest, schedule }: Model,
  graphs: Pick<LoadedModel, "run">,
  { keys, length, steps }: LoopJob,
  savings = { shareFirst: true, skipEmpty: true },
): Promise<void> {
  const { mask_token_id, context_length } = manifest;
  const { order, temperature, top_k: topK, top_p: topP } = defaultsOf(manifest);
  const padded = paddedLength(length, context_length);
  const samples = keys.map((key) => {
    const canvas = promptCanvas([], length, mask_token_id);
    return new Sample({ canvas, steps, ...key, order, temperature, topK, topP }, schedule, mask_token_id);
  });
  for (;;) {
    const rows = samples
      .filter((sample) => !sample.done)
      .map((sample) => ({ sample, plan: sample.plan(), padded }));
    if (rows.length === 0) return;
    const working = rows.filter(({ plan }) => !isEmpty(plan));
    const empty = rows.filter(({ plan }) => isEmpty(plan));
    for (const { sample, plan } of empty) sample.apply(plan, []);
    if (working.length > 0) {
      // Rows share a canvas in step 0 only; another step number prevents the sharing.
      const sent = savings.shareFirst
        ? working
        : working.map((row) => ({ ...row, plan: { ...row.plan, step: 1 } }));
      const input = denoiseInput(sent);
      const result = (await graphs.run({ graph: "denoise", input })) as DenoiseResult;
      for (const [i, row] of splitDraws(working, input, result).entries()) {
        if (row instanceof Error) throw row;
        working[i]!.sample.apply(working[i]!.plan, row.candidates);
      }
    }
    if (!savings.skipEmpty && empty.length > 0) {
      const candidates = [{ positions: [0], uniforms: [0.5] }];
      const input = denoiseInput(empty.map((row) => ({ ...row, plan: { ...row.plan, candidates } })));
      await graphs.run({ graph: "denoise", input });
    }
  }
}
