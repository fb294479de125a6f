/** The baseline as a child process: the loop of the sampler alone. A job comes as a message, its seconds go back. */

import { openModel } from "../../src/model/model.ts";
import { loadModel } from "../../src/runtime/worker/session.ts";
import { runLoop } from "./loop.ts";

/** One measurement: `rounds` times a batch of `rows` samples. */
export interface BareJob {
  model: string;
  threads: number;
  rows: number;
  rounds: number;
  length: number;
  steps: number;
}

async function load(job: BareJob) {
  const model = await openModel(job.model);
  return { model, graphs: await loadModel({ graphs: model.graphs, device: "cpu", threads: job.threads }) };
}
let loaded: ReturnType<typeof load> | undefined;

process.on("message", async (job: BareJob) => {
  loaded ??= load(job);
  const { model, graphs } = await loaded;
  const started = performance.now();
  for (let round = 0; round < job.rounds; round++) {
    const keys = Array.from({ length: job.rows }, (_, i) => ({ seed: round * job.rows + i, sample: 0 }));
    await runLoop(model, graphs, { keys, length: job.length, steps: job.steps });
  }
  process.send!((performance.now() - started) / 1000);
});
