/**
 * `npm run chaos`: mixed traffic while workers are killed, frozen, starved of memory and damaged.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { decimal, integer } from "../../src/cli/parsers.ts";
import { Progress } from "../cli/progress.ts";
import { flag, interruption, script } from "../cli/script.ts";
import { publish } from "../report/checks.ts";
import { machine } from "../servers/machine.ts";
import { Server } from "../servers/server.ts";
import { closedLoop } from "../traffic/closed.ts";
import { Random } from "../traffic/random.ts";
import { KINDS } from "./faults.ts";
import { checksOf, markdownOf, type Run } from "./report.ts";
import { type Struck, strike, watchReadiness } from "./strike.ts";
import { ask, emptyTally, WAYS, withoutFaults } from "./traffic.ts";

interface Flags {
  seconds: number;
  seed: number;
  model: string;
  clients: number;
  faults: number;
  recovery: number;
  split: number;
  out?: string;
}

const OUTCOMES = ["done", "failed", "cancelled"] as const;

/** Return the server's count of requests by outcome. */
async function counts(server: Server): Promise<Run["counted"]> {
  const count = async (outcome: string) =>
    [outcome, await server.metric(`didi_requests_total{outcome="${outcome}"}`)] as const;
  return Object.fromEntries(await Promise.all(OUTCOMES.map(count))) as Run["counted"];
}

await script<Flags>(
  "chaos",
  "Break workers at random while clients ask, and hold every answer to the one without faults. Linux.",
  [
    flag("--seconds <n>", "duration of the faults", integer(1, 86_400), 600),
    flag("--seed <n>", "seed of the faults, their times and the requests", integer(0, 2 ** 31), 1),
    flag("--model <name|folder>", "model to serve", undefined, "stories-didi"),
    flag("--clients <n>", "clients that send requests without a pause", integer(1, 1000), 6),
    flag("--faults <n>", "fail if fewer faults took effect", integer(0, 1e6), 0),
    flag("--recovery <seconds>", "fail if the server needs longer to recover", decimal(0, 3600), 5),
    flag("--split <n>", "parts that each worker divides its batches into", integer(1, 64), 1),
    flag("--out <folder>", "write chaos.md and chaos.json here (default: print the report)"),
  ],
  async ({ seconds, seed, model, clients, faults, recovery, split, out }) => {
    const limits = ["--workers", "2", "--threads", "1", "--cache-mb", "0", "--max-batch-tokens", "1024"];
    // The expected answers are in fp32, and NaN can be written over float weights only.
    limits.push("--precision", "fp32");
    limits.push("--split", `${split}`);
    const server = await Server.start(["--model", model, ...limits]);
    const interrupted = interruption();
    console.error("running every request once without faults");
    const expected = await withoutFaults(server.origin);
    const restarts = () => server.metric("didi_worker_restarts_total");
    const before = { counted: await counts(server), restarts: await restarts(), memory: server.memory() };

    const tally = emptyTally();
    const struck: Struck[] = [];
    const started = performance.now();
    const elapsed = () => (performance.now() - started) / 1000;
    let over = false;
    const randoms = Array.from({ length: clients }, (_, i) => new Random(seed, i + 1));
    const asking = closedLoop(
      clients,
      (i) => ask(server.origin, WAYS[i % WAYS.length]!, randoms[i]!, expected, tally),
      () => !over,
    );
    const readiness = watchReadiness(server);
    const progress = new Progress();
    const random = new Random(seed);
    while (!interrupted.aborted && server.alive && elapsed() < seconds) {
      await sleep(random.next() * 400);
      const pids = server.workerPids();
      if (pids.length < 2) continue;
      // The server recovers soonest from a kill, so kills are more frequent; sometimes both processes are
      // struck.
      const kind = random.chance(0.35) ? "kill" : random.pick(KINDS);
      const victims = random.chance(0.35) ? pids : [random.pick(pids)];
      struck.push(...(await Promise.all(victims.map((pid) => strike(server, kind, pid, elapsed())))));
      const answers = Object.values(tally.answered).reduce((a, b) => a + b);
      const wrong = tally.lost.length + tally.different.length + tally.steps.length;
      progress.show(
        () =>
          `${elapsed().toFixed(0)} of ${seconds} s: ` +
          `${struck.length} faults, ${answers} answers, ${wrong} wrong`,
      );
    }
    over = true;
    progress.close();
    const lasted = elapsed();
    await asking;
    const unready = await readiness.stop();
    const readyAfter = await server.ready();
    const counted = server.alive ? await counts(server) : before.counted;
    const run: Run = {
      machine: machine(model),
      seed,
      seconds: Math.round(lasted),
      interrupted: interrupted.aborted,
      tally,
      struck,
      unready,
      readyAfter,
      restarts: server.alive ? (await restarts()) - before.restarts : 0,
      counted: Object.fromEntries(
        OUTCOMES.map((outcome) => [outcome, counted[outcome] - before.counted[outcome]]),
      ) as Run["counted"],
      memory: { before: before.memory, after: server.memory() },
      ending: await server.stop(),
      errors: server.errors.slice(-20),
    };
    const checks = checksOf(run, faults, recovery);
    const failed = publish(out, "chaos", checks, markdownOf(run, checks), run);
    return interrupted.aborted ? 130 : failed;
  },
);
