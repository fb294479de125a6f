/** `npm run kills`: runs requests on an engine while its workers are killed at random. */

import { integer } from "../src/cli/parsers.ts";
import { underKills } from "../test/engine/kills.ts";
import { Progress } from "./cli/progress.ts";
import { flag, interruption, script } from "./cli/script.ts";

await script<{ kills: number; seed: number; split: number }>(
  "kills",
  "Kill workers at random moments; no answer may differ from the one without kills.",
  [
    flag("--kills <n>", "processes to kill", integer(1, 1e6), 500),
    flag("--seed <n>", "seed of the moments and of the processes", integer(0, 2 ** 31), 2),
    flag("--split <n>", "parts that each worker divides its batches into", integer(1, 64), 1),
  ],
  async ({ kills, seed, split }) => {
    const progress = new Progress();
    const show = (done: number) => progress.show(() => `${done} of ${kills} kills`);
    const report = await underKills(kills, seed, show, interruption(), split);
    progress.close();
    console.log(
      `${report.kills} kills in ${report.seconds.toFixed(0)} s: ${report.answers} requests answered, ` +
        `${report.different} differ from those without kills`,
    );
    return report.different === 0 ? 0 : 1;
  },
);
