/** The peer without a server around it: a loop around `denoise` in a process of its own. */

import { BareLoop } from "../../bench/serving.ts";
import type { SweepConfig } from "../../cli/flags.ts";
import type { SideInfo } from "../../report/types.ts";
import { runLoop } from "./loop.ts";
import type { PeerSide } from "./peers.ts";

/** Starts it. Rejects if the model does not run. */
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
