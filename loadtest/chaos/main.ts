/** `npm run chaos`: mixed traffic while runtime processes are killed, frozen, starved of memory and damaged. */

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { machine } from "../bench/machine.ts";
import { progress, publish } from "../report/checks.ts";
import { StrainedServer } from "../servers/strained.ts";
import { Random } from "../traffic/random.ts";
import { KINDS } from "./faults.ts";
import { checksOf, markdownOf, type Run } from "./report.ts";
import { type Struck, strike, watchReadiness } from "./strike.ts";
import { client, emptyTally, inPeace, WAYS } from "./traffic.ts";

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string", default: "600" },
    seed: { type: "string", default: "1" },
    model: { type: "string", default: "stories-didi" },
    clients: { type: "string", default: "6" },
    faults: { type: "string", default: "0" },
    recovery: { type: "string", default: "5" },
    split: { type: "string", default: "1" },
    out: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run chaos -- [flags]
  --seconds <n>   how long faults happen (default 600)
  --seed <n>      of the faults, their moments and the requests (default 1)
  --model <name>  a model folder (default stories-didi)
  --clients <n>   clients that ask without a pause (default 6)
  --faults <n>    fails if fewer took effect (default 0)
  --recovery <n>  seconds within which all has to be well again (default 5)
  --split <n>     parts that each worker divides its batches into (default 1)
  --out <folder>  where chaos.md and chaos.json go (default: printed only)
Ctrl-C ends the faults and reports what there was.`);
  process.exit(0);
}
const seconds = Number(flags.seconds);
const seed = Number(flags.seed);

const server = await StrainedServer.start([
  "--model",
  flags.model,
  "--runtimes",
  "2",
  "--threads",
  "1",
  "--split",
  flags.split,
  "--cache-mb",
  "0",
  "--max-batch-tokens",
  "1024",
]);
let interrupted = false;
process.on("SIGINT", () => {
  if (interrupted) process.exit(130);
  interrupted = true;
  process.stderr.write("\nstopping: a second Ctrl-C ends it at once\n");
});

console.error("every request once, in peace");
const expected = await inPeace(server.origin);
const outcomes = ["done", "failed", "cancelled"] as const;
const counted = async () =>
  Object.fromEntries(
    await Promise.all(
      outcomes.map(async (o) => [o, await server.metric(`didi_generations_total{outcome="${o}"}`)] as const),
    ),
  ) as Run["counted"];
const before = await counted();
const restarts = () => server.metric("didi_runtime_restarts_total");
const restartsBefore = await restarts();
const memoryBefore = server.memory();

const tally = emptyTally();
const struck: Struck[] = [];
const started = performance.now();
const elapsed = () => (performance.now() - started) / 1000;
let over = false;
const clients = Array.from({ length: Number(flags.clients) }, (_, i) =>
  client(server.origin, WAYS[i % WAYS.length]!, new Random(seed, i + 1), expected, tally, () => over),
);
const readiness = watchReadiness(server);
const say = progress();
const random = new Random(seed);
while (!interrupted && server.alive && elapsed() < seconds) {
  await sleep(random.next() * 400);
  const pids = server.runtimePids();
  if (pids.length < 2) continue;
  // Kills are over soonest; now and then both processes are struck at once.
  const kind = random.chance(0.35) ? "kill" : random.pick(KINDS);
  const victims = random.chance(0.35) ? pids : [random.pick(pids)];
  struck.push(...(await Promise.all(victims.map((pid) => strike(server, kind, pid, elapsed())))));
  say(() => {
    const answers = Object.values(tally.answered).reduce((a, b) => a + b);
    return `${elapsed().toFixed(0)} of ${seconds} s: ${struck.length} faults, ${answers} answers, ${tally.lost.length + tally.different.length + tally.steps.length} wrong`;
  });
}
over = true;
const lasted = elapsed();
await Promise.all(clients);
const unready = await readiness.stop();
const readyAfter = await server.ready();
const after = server.alive ? await counted() : before;
const restarted = server.alive ? (await restarts()) - restartsBefore : 0;
const memoryAfter = server.memory();
const ending = await server.stop();
const run: Run = {
  machine: machine(flags.model),
  seed,
  seconds: Math.round(lasted),
  interrupted,
  tally,
  struck,
  unready,
  readyAfter,
  restarts: restarted,
  counted: Object.fromEntries(outcomes.map((o) => [o, after[o] - before[o]])) as Run["counted"],
  memory: { before: memoryBefore, after: memoryAfter },
  ending,
  complaints: server.complaints.slice(-20),
};
const checks = checksOf(run, Number(flags.faults), Number(flags.recovery));
const failed = publish(flags.out, "chaos", checks, markdownOf(run, checks), run);
process.exit(interrupted ? 130 : failed);
