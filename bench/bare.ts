/** The baseline: a loop around `denoise` in a process of its own, with no queue, no IPC and no HTTP. */

import { Sample } from "../src/diffusion/sampler.ts";
import { buildBatch, splitResult } from "../src/engine/batch.ts";
import { paddedLength } from "../src/engine/scheduler.ts";
import { openModel } from "../src/model/model.ts";
import { loadSession } from "../src/runtime/session.ts";

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
  session: Awaited<ReturnType<typeof loadSession>>;
}>;

async function load(job: BareJob) {
  const model = await openModel(job.model);
  const options = { graph: model.graphs.denoise, device: "cpu" as const, threads: job.threads };
  return { model, session: await loadSession(options) };
}

/** Seconds for the whole job. */
async function run(job: BareJob): Promise<number> {
  loaded ??= load(job);
  const { model, session } = await loaded;
  const { mask_token_id, context_length } = model.manifest;
  const started = performance.now();
  for (let round = 0; round < job.rounds; round++) {
    const rows = Array.from({ length: job.rows }, (_, i) => {
      const params = { prompt: [], length: job.length, steps: job.steps, sample: 0, temperature: 1 };
      const sample = new Sample({ ...params, seed: round * job.rows + i }, model.schedule, mask_token_id);
      return { sample, padded: paddedLength(job.length, context_length) };
    });
    for (;;) {
      const due = rows
        .filter(({ sample }) => !sample.done)
        .map(({ sample, padded }) => ({
          sample,
          padded,
          temperature: 1,
          tokens: sample.canvas.tokens,
          plan: sample.plan(),
        }));
      if (due.length === 0) break;
      const working = due.filter(({ plan }) => plan.positions.length > 0);
      for (const { sample, plan } of due) if (plan.positions.length === 0) sample.apply(plan, [], []);
      if (working.length === 0) continue;
      const draws = splitResult(working, await session.denoise(buildBatch(working)));
      for (const [i, { sample, plan }] of working.entries()) {
        const row = draws[i]!;
        if (row instanceof Error) throw row;
        sample.apply(plan, row.tokens, row.logprobs);
      }
    }
  }
  return (performance.now() - started) / 1000;
}

process.on("message", async (job) => process.send!(await run(job as BareJob)));
