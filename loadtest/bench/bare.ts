/** The baseline: a loop around `denoise` in a process of its own, with no queue, no IPC and no HTTP. */

import { promptCanvas } from "../../src/diffusion/canvas.ts";
import { isEmpty, Sample } from "../../src/diffusion/sampler.ts";
import { denoiseBatch, splitDraws } from "../../src/engine/batch.ts";
import { paddedLength } from "../../src/engine/scheduler.ts";
import { openModel } from "../../src/model/model.ts";
import type { DenoiseResult } from "../../src/runtime/protocol.ts";
import { loadModel } from "../../src/runtime/session.ts";

/** One measurement: `rounds` times a batch of `rows` generations. */
export interface BareJob {
  model: string;
  threads: number;
  rows: number;
  rounds: number;
  length: number;
  steps: number;
}

let loaded: Promise<{
  model: Awaited<ReturnType<typeof openModel>>;
  graphs: Awaited<ReturnType<typeof loadModel>>;
}>;

async function load(job: BareJob) {
  const model = await openModel(job.model);
  const options = { graphs: model.graphs, device: "cpu" as const, threads: job.threads };
  return { model, graphs: await loadModel(options) };
}

/** Seconds for the whole job. */
async function run(job: BareJob): Promise<number> {
  loaded ??= load(job);
  const { model, graphs } = await loaded;
  const { mask_token_id, context_length } = model.manifest;
  const { schedule } = model;
  const draw = { temperature: 1, topK: 0, topP: 1, order: "random" as const };
  const started = performance.now();
  for (let round = 0; round < job.rounds; round++) {
    const rows = Array.from({ length: job.rows }, (_, i) => {
      const params = {
        canvas: promptCanvas([], job.length, mask_token_id),
        steps: job.steps,
        sample: 0,
        ...draw,
      };
      const sample = new Sample({ ...params, seed: round * job.rows + i }, schedule, mask_token_id);
      return { sample, padded: paddedLength(job.length, context_length) };
    });
    for (;;) {
      const due = rows
        .filter(({ sample }) => !sample.done)
        .map(({ sample, padded }) => ({
          sample,
          padded,
          ...draw,
          schedule,
          tokens: sample.canvas.tokens,
          plan: sample.plan(),
        }));
      if (due.length === 0) break;
      const working = due.filter(({ plan }) => !isEmpty(plan));
      for (const { sample, plan } of due) if (isEmpty(plan)) sample.apply(plan, []);
      if (working.length === 0) continue;
      const call = { graph: "denoise" as const, batch: denoiseBatch(working) };
      const draws = splitDraws(working, call.batch, (await graphs.run(call)) as DenoiseResult);
      for (const [i, { sample, plan }] of working.entries()) {
        const row = draws[i]!;
        if (row instanceof Error) throw row;
        sample.apply(plan, row.candidates);
      }
    }
  }
  return (performance.now() - started) / 1000;
}

process.on("message", async (job) => process.send!(await run(job as BareJob)));
