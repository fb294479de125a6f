/** `npm run kills`: generations while runtime processes are killed at random, as long as one likes. */

import { parseArgs } from "node:util";
import { underKills } from "../test/engine/kills.ts";

const { values: flags } = parseArgs({
  options: {
    kills: { type: "string", default: "500" },
    seed: { type: "string", default: "2" },
    split: { type: "string", default: "1" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run kills -- [flags]
  --kills <n>  processes to kill (default 500)
  --seed <n>   of the moments and the victims (default 2)
  --split <n>  parts that each worker divides its batches into (default 1)
Ctrl-C ends it and reports what there was.`);
  process.exit(0);
}
const total = Number(flags.kills);
const interrupt = new AbortController();
process.once("SIGINT", () => interrupt.abort());
process.once("SIGTERM", () => interrupt.abort());
const progress = (done: number) => {
  if (process.stderr.isTTY || done % 50 === 0) process.stderr.write(`\r${done}/${total} kills `);
};
const report = await underKills(total, Number(flags.seed), progress, interrupt.signal, Number(flags.split));
process.stderr.write("\n");
console.log(
  `${report.kills} kills in ${report.seconds.toFixed(0)} s: ${report.answers} generations answered, ${report.different} differ from those in peace`,
);
process.exit(report.different === 0 ? 0 : 1);
