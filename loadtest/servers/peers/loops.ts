/** The peers without a server: batches of rows, one after the other. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../../src/package-root.ts";
import { BareLoop } from "../../bench/bare-loop.ts";
import { Reference } from "../../bench/reference.ts";
import type { SweepConfig } from "../../cli/flags.ts";
import type { SideInfo } from "../../report/types.ts";
import type { Job, PeerSide, Taken } from "../side.ts";

/** The load of a loop. */
interface LoopJob {
  rows: number;
  rounds: number;
  length: number;
  steps: number;
}

/** Run a closed loop as a loop of batches; `seconds` runs it and returns its duration. */
async function runLoop(
  { cell, amount, recorder }: Job,
  seconds: (job: LoopJob) => Promise<number>,
): Promise<Taken> {
  const { length, steps } = cell.shapes[0]!;
  if (cell.load.kind !== "closed" || !("rounds" in amount) || steps === undefined)
    throw new TypeError("a loop has rows, rounds and steps");
  const job = { rows: cell.load.clients, rounds: amount.rounds, length, steps };
  const taken = await seconds(job);
  recorder.batch(job.rows * job.rounds, job.rows * job.rounds * length);
  return { seconds: taken };
}

/** Start a loop around `denoise` in its own process. Rejects if the model does not run. */
export async function startBare({ model }: SweepConfig, info: SideInfo): Promise<PeerSide> {
  const loop = new BareLoop(model);
  await loop.run({ rows: 1, rounds: 1, length: 8, steps: 1 });
  const settings = {
    runtime: "onnxruntime-node, the same graphs",
    threads: "one for each core",
    batch: "all rows in one call",
  };
  return {
    info: { ...info, settings },
    budgets: true,
    run: (job) =>
      runLoop(job, async (loopJob) => {
        const { rows, rounds, length } = loopJob;
        return (rows * rounds * length) / (await loop.run(loopJob));
      }),
    close: async () => loop.close(),
  };
}

/**
 * Start the published sampler in PyTorch on the same weights: every step computes the logits of every
 * position. Reject if Python, PyTorch or the weights are missing.
 */
export async function startReference(
  { model, python, checkpoint }: SweepConfig,
  info: SideInfo,
): Promise<PeerSide> {
  const folder = existsSync(model) ? model : join(PACKAGE_ROOT, "models", model);
  const weights = join(folder, "weights.fp16.safetensors");
  if (!checkpoint && !existsSync(weights))
    throw new Error(`${folder} has no weights for PyTorch: name its checkpoint with --checkpoint`);
  const reference = await Reference.start(
    python,
    checkpoint ? ["--checkpoint", checkpoint] : ["--weights", weights],
  ).catch((error: Error) => {
    throw new Error(`${error.message}: does ${python} have training/requirements.txt? (--python)`);
  });
  const { torch, threads } = reference.versions;
  return {
    info: {
      ...info,
      settings: { PyTorch: torch, threads, precision: "float32", batch: "all rows together" },
    },
    budgets: true,
    run: (job) =>
      runLoop(job, async ({ rows, rounds, length, steps }) => {
        let seconds = 0;
        for (let round = 0; round < rounds && !job.signal.aborted; round++)
          seconds += await reference.sample(rows, length, steps);
        return seconds;
      }),
    close: async () => reference.close(),
  };
}
