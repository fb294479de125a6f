/**
 * `npm run bench`: what serving costs, what each saving brings, and how the server compares with others.
 *
 * Every ratio is between two sides measured in turn in one run, as the median of the repeats with their range.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { graphCosts } from "./graphs.ts";
import { sayMachine } from "./machine.ts";
import { againstPeer } from "./peer.ts";
import { againstProducts, againstReference, Reference } from "./reference.ts";
import { startServer } from "./server.ts";
import { fairness, saturation, throughput } from "./serving.ts";

const SECTIONS = ["saturation", "fairness", "throughput", "graphs", "reference", "peer"];

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", default: "stories-didi" },
    only: { type: "string", default: "saturation,fairness,throughput,graphs,peer" },
    length: { type: "string", default: "128" },
    repeats: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    threads: { type: "string", default: "0" },
    runtimes: { type: "string", default: "1" },
    beside: { type: "string" },
    clients: { type: "string", default: "1,8,16" },
    steps: { type: "string", default: "8,16,32" },
    python: { type: "string", default: process.env.DIDI_PYTHON ?? "python3" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run bench -- [flags]
  --model <name|folder>  (default stories-didi)
  --only <section,...>   of ${SECTIONS.join(", ")}
                         (default: all but reference, which needs --python)
  --length <n>           new tokens of each generation (default 128)
  --repeats <n>          interleaved repeats of each cell (default 5)
  --seconds <n>          about how long one measurement of throughput takes (default 2)
  --clients <n,...>      of the table of throughput (default 1,8,16)
  --steps <n,...>        of the table of throughput (default 8,16,32)
  --threads <n>          of the server's calls and the bare loop's; 0: one for each core (default 0)
  --runtimes <n>         runtime processes of the server, and bare loops side by side (default 1)
  --beside=<flags>       another server with these flags more, in turn in the table of throughput, such as --beside='--split 1'
  --python <program>     with models/training/requirements.txt installed (default python3, env DIDI_PYTHON)`);
  process.exit(0);
}
const sections = flags.only.split(",");
const unknown = sections.filter((section) => !SECTIONS.includes(section));
if (unknown.length > 0) {
  console.error(`--only: no section ${unknown.join(", ")}; there are ${SECTIONS.join(", ")}`);
  process.exit(2);
}
const [length, repeats, seconds] = [Number(flags.length), Number(flags.repeats), Number(flags.seconds)];
const { model } = flags;
const folder = existsSync(model) ? model : join(PACKAGE_ROOT, "models", model);

sayMachine(model);
const common = ["--threads", flags.threads, "--runtimes", flags.runtimes];
const server = await startServer(model, ...common);
process.once("exit", () => server.child.kill("SIGKILL"));
process.once("SIGINT", () => process.exit(130));
const wanted = (section: string) => sections.includes(section);
if (wanted("saturation")) await saturation(server, length);
if (wanted("fairness")) await fairness(server, length);
if (wanted("throughput")) {
  const { beside } = flags;
  const other =
    beside === undefined
      ? undefined
      : { name: beside, server: await startServer(model, ...common, ...beside.split(" ")) };
  if (other) process.once("exit", () => other.server.child.kill("SIGKILL"));
  await throughput(
    server,
    {
      ...{ model, length, repeats, seconds },
      steps: flags.steps.split(",").map(Number),
      clients: flags.clients.split(",").map(Number),
      threads: Number(flags.threads),
      runtimes: Number(flags.runtimes),
    },
    other,
  );
  other?.server.child.kill("SIGTERM");
}
if (wanted("graphs")) await graphCosts(model, length, repeats);
if (wanted("peer"))
  await againstPeer(server, join(PACKAGE_ROOT, "models", "stories-ar"), length, [4, 8, 16, 32], repeats);
if (wanted("reference")) {
  const reference = await Reference.start(flags.python, [
    "--weights",
    join(folder, "weights.fp16.safetensors"),
  ]);
  reference.say();
  const grid = [1, 4, 8, 16, 32, 64, 128].map((steps) => ({ length, steps }));
  await againstReference(server, reference, grid, repeats);
  await againstProducts(model, reference, [length], repeats);
  reference.close();
}
server.child.kill("SIGTERM");
process.exit(0);
