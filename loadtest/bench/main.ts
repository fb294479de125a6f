/**
 * `npm run bench`: what serving costs, and what each saving brings.
 *
 * Every ratio is between two sides measured in turn in one run, as the median of the repeats with their
 * range.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { integer } from "../../src/cli/parsers.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { flag, list, oneOf, PYTHON, script } from "../cli/script.ts";
import { machine } from "../servers/machine.ts";
import { Server } from "../servers/server.ts";
import { alternatives } from "./alternatives.ts";
import { graphCosts } from "./graphs.ts";
import { againstProducts, againstReference, Reference } from "./reference.ts";
import { fairness, saturation, throughput } from "./serving.ts";

const SECTIONS = [
  ...(["saturation", "fairness", "throughput", "graphs", "alternatives"] as const),
  ...(["products", "reference"] as const),
];
/** Sections that need PyTorch. */
const PYTORCH: readonly string[] = ["products", "reference"];
const count = integer(1, 100_000);

interface Flags {
  model: string;
  only: (typeof SECTIONS)[number][];
  length: number;
  repeats: number;
  seconds: number;
  clients: number[];
  steps: number[];
  threads: number;
  workers: number;
  beside?: string;
  python: string;
}

await script<Flags>(
  "bench",
  "Measure the cost of serving, and the gain of each optimisation.",
  [
    flag("--model <name|folder>", "model to measure", undefined, "stories-didi"),
    flag(
      "--only <section,...>",
      `sections of ${SECTIONS.join(", ")} (the last two need --python)`,
      list(oneOf(SECTIONS)),
      SECTIONS.filter((section) => !PYTORCH.includes(section)),
    ),
    flag("--length <n>", "new tokens of each request", count, 128),
    flag("--repeats <n>", "repeats of each measurement, interleaved", count, 5),
    flag("--seconds <n>", "approximate duration of one measurement of throughput", count, 2),
    flag("--clients <n,...>", "clients in the table of throughput", list(count), [1, 8, 16]),
    flag("--steps <n,...>", "step budgets in the table of throughput", list(count), [8, 16, 32]),
    flag(
      "--threads <n>",
      "threads of the server and of the bare loop; 0 is one for each core",
      integer(0, 1024),
      0,
    ),
    flag("--workers <n>", "workers of the server, and bare loops side by side", count, 1),
    flag("--beside <flags>", "also measure a second server with these flags, such as --beside='--split 1'"),
    PYTHON,
  ],
  async ({ model, only, length, repeats, seconds, steps, clients, threads, workers, beside, python }) => {
    console.log(machine(model));
    const wanted = (section: (typeof SECTIONS)[number]) => only.includes(section);
    const common = [
      "--model",
      model,
      "--cache-mb",
      "0",
      "--threads",
      `${threads}`,
      "--workers",
      `${workers}`,
    ];
    const server = await Server.start(common);
    if (wanted("saturation")) await saturation(server, length);
    if (wanted("fairness")) await fairness(server, length);
    if (wanted("throughput")) {
      const other =
        beside === undefined
          ? undefined
          : { name: beside, server: await Server.start([...common, ...beside.split(" ")]) };
      const options = { model, length, repeats, seconds, steps, clients, threads, workers };
      await throughput(server, options, other);
      await other?.server.stop();
    }
    if (wanted("alternatives")) await alternatives(server.origin, length, steps, repeats);
    if (wanted("graphs")) await graphCosts(model, length, repeats);
    if (wanted("products") || wanted("reference")) {
      const folder = existsSync(model) ? model : join(PACKAGE_ROOT, "models", model);
      const reference = await Reference.start(python, [
        "--weights",
        join(folder, "weights.fp16.safetensors"),
      ]);
      reference.say();
      if (wanted("reference")) {
        const grid = [1, 4, 8, 16, 32, 64, 128].map((budget) => ({ length, steps: budget }));
        await againstReference(server, reference, grid, repeats);
      }
      if (wanted("products")) await againstProducts(model, reference, [length], repeats);
      reference.close();
    }
    await server.stop();
    return 0;
  },
);
