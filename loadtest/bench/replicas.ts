/**
 * `npm run bench:replicas`: throughput against replicas. Measures one replica with one thread, two of them
 * directly and behind nginx, and one with two threads, alternately on one machine.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startNginx } from "../../test/support/nginx.ts";
import { script } from "../cli/script.ts";
import { machine } from "../servers/machine.ts";
import { Server } from "../servers/server.ts";
import { fitBatch, throughput } from "../traffic/fit.ts";
import { median, ratios } from "../traffic/statistics.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";
import { served } from "./requests.ts";

const MODEL = "stories-didi";
const LENGTH = 128;
const STEPS = 16;
const REPEATS = 5;
/** Approximate seconds of one measurement. */
const SECONDS = 2.5;
/** Clients of one replica for the fit of the cost of a batch and of a row, and clients of the comparison. */
const FEW = [1, 2, 4, 8];
const CLIENTS = 8;

/** Return tokens a second of `clients` clients with `rounds` requests each. */
const measure = (origin: string | readonly string[], clients: number, rounds: number) =>
  served(origin, clients, rounds, LENGTH, STEPS);

await script(
  "bench:replicas",
  "Measure throughput against replicas: one, two, two behind nginx, and one with two threads.",
  [],
  async () => {
    const folder = await mkdtemp(join(tmpdir(), "didi-replicas-"));
    const flags = ["--model", MODEL, "--cache-mb", "0", "--max-batch-tokens", "1024"];
    const one = await Server.start([...flags, "--threads", "1"]);
    const other = await Server.start([...flags, "--threads", "1"]);
    const wide = await Server.start([...flags, "--threads", "2"]);
    const nginx = await startNginx(folder, [one.port, other.port]);
    process.once("SIGINT", () => process.exit(130));
    try {
      await compare(one, other, wide, nginx.origin);
    } finally {
      nginx.child.kill("SIGTERM");
      await rm(folder, { recursive: true });
    }
    return 0;
  },
);

/** Measure all sides in turn and print the tables. */
async function compare(one: Server, other: Server, wide: Server, nginx: string): Promise<void> {
  console.log(machine(MODEL));
  const pair = [one.origin, other.origin];
  const speed = await measure(wide.origin, CLIENTS, 1);
  const roundsOf = (clients: number) =>
    Math.max(1, Math.round((SECONDS * speed) / (clients * LENGTH) / (clients === 1 ? 2 : 1)));
  const sides = [
    ...FEW.map((clients) => () => measure(one.origin, clients, roundsOf(clients))),
    () => measure(wide.origin, CLIENTS, roundsOf(CLIENTS)),
    () => measure(pair, CLIENTS, roundsOf(CLIENTS)),
    () => measure(nginx, CLIENTS, roundsOf(CLIENTS)),
    () => measure(pair, 2 * CLIENTS, roundsOf(2 * CLIENTS)),
  ];
  for (const side of sides) await side();
  const results = await interleave(REPEATS, ...sides);
  const alone = results.slice(0, FEW.length);
  const [two, both, behind, double] = results.slice(FEW.length) as [number[], number[], number[], number[]];
  const base = alone.at(-1)!;
  console.log(
    `\nTokens a second, ${LENGTH} new tokens in ${STEPS} steps; median of ${REPEATS} (lowest to highest)\n`,
  );
  tableHead("replicas", "threads each", "clients", "tokens a second", "times one replica");
  for (const [i, clients] of FEW.entries())
    tableRow(
      1,
      1,
      clients,
      range(alone[i]!, 0),
      clients === CLIENTS ? "1" : range(ratios(alone[i]!, base), 2),
    );
  tableRow(2, 1, CLIENTS, range(both, 0), range(ratios(both, base), 2));
  tableRow("2, behind nginx", 1, CLIENTS, range(behind, 0), range(ratios(behind, base), 2));
  tableRow(2, 1, 2 * CLIENTS, range(double, 0), range(ratios(double, base), 2));
  tableRow(1, 2, CLIENTS, range(two, 0), range(ratios(two, base), 2));
  console.log(`\nTwo replicas of one thread over one of two threads: ${range(ratios(both, two), 2)}`);

  const shape = { length: LENGTH, steps: STEPS };
  const cost = fitBatch(
    shape,
    FEW,
    alone.map((values) => median(values)),
  );
  const formula = (replicas: number, clients: number) => throughput(cost, shape, replicas, clients);
  console.log(
    `A batch of r rows takes ${cost.a.toFixed(2)} ms + r x ${cost.b.toFixed(2)} ms; ` +
      `two replicas and ${CLIENTS} clients: ${formula(2, CLIENTS).toFixed(0)} by the formula, ` +
      `${((100 * median(both)) / formula(2, CLIENTS)).toFixed(0)}% of it measured; ` +
      `${2 * CLIENTS} clients: ${formula(2, 2 * CLIENTS).toFixed(0)}, ` +
      `${((100 * median(double)) / formula(2, 2 * CLIENTS)).toFixed(0)}%\n`,
  );
  tableHead("replicas", "8 clients each", "8 clients in all", "64 clients in all");
  for (const n of [1, 2, 4, 8, 16])
    tableRow(n, ...[8 * n, 8, 64].map((c) => (c < n ? "-" : formula(n, c).toFixed(0))));
}
