/** The straight PyTorch sampler on the same weights: every step computes every position's logits. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../../src/package-root.ts";
import { Reference } from "../../bench/reference.ts";
import type { SweepConfig } from "../../cli/flags.ts";
import type { SideInfo } from "../../report/types.ts";
import { runLoop } from "./loop.ts";
import type { PeerSide } from "./peers.ts";

/** Starts it. Rejects where Python, PyTorch or the weights are missing. */
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
    throw new Error(`${error.message}: does ${python} have models/training/requirements.txt? (--python)`);
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
