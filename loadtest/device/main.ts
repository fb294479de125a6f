/**
 * `npm run device-check`: does a device compute what the CPU computes, and how fast?
 *
 * Each part runs by itself: what fails is reported, and the others go on. On a GPU it takes less than 4
 * minutes; with `--device cpu` it is rehearsed without one.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { integer } from "../../src/cli/parsers.ts";
import type { Device } from "../../src/runtime/protocol.ts";
import { flag, list, oneOf, PYTHON, script } from "../cli/script.ts";
import { environment } from "../servers/machine.ts";
import { Check } from "./check.ts";
import { readyRandomModel } from "./random-model.ts";
import { markdown } from "./report.ts";

const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve");

interface Flags {
  device: Device;
  quick: boolean;
  model: string;
  random: string;
  precision: ("fp32" | "fp16")[];
  rows?: number[];
  steps?: number[];
  length: number;
  cell: number;
  minutes: number;
  python: string;
  out: string;
}

await script<Flags>(
  "device-check",
  "Compare a device with the CPU and with PyTorch on the same device: results, speed, memory, determinism.",
  [
    flag("--device <device>", "cpu, cuda or auto", oneOf(["cpu", "cuda", "auto"]), "auto"),
    flag("--quick", "few rows and steps, and no random model unless --random is given", undefined, false),
    flag("--model <name|folder>", "the trained model", undefined, "stories-didi"),
    flag(
      "--random <folder>",
      "model of random weights, made there with --python if it does not exist; none leaves it out " +
        "(default: one of the published size in the cache)",
    ),
    flag("--precision <name,...>", "fp16, fp32", list(oneOf(["fp16", "fp32"])), ["fp16", "fp32"]),
    flag("--rows <n,...>", "rows of a batch (default: 1,8,64, quick: 1,8)", list(integer(1, 1024))),
    flag("--steps <n,...>", "rising step budgets (default: 4 to 128, quick: 4,8)", list(integer(1, 1024))),
    flag("--length <n>", "new tokens", integer(16, 1024), 128),
    flag("--cell <seconds>", "leave out figures that would take longer", integer(1, 3600), 8),
    flag("--minutes <n>", "start no further part after this time", integer(1, 600), 4),
    PYTHON,
    flag("--out <folder>", "folder of device-check.md and device-check.json", undefined, "results"),
  ],
  async ({ quick, model, random, rows, steps, ...flags }) => {
    const started = performance.now();
    const settings = {
      ...flags,
      rows: rows ?? (quick ? [1, 8] : [1, 8, 64]),
      steps: steps ?? (quick ? [4, 8] : [4, 8, 16, 32, 64, 128]),
    };
    const wanted = random ?? (quick ? "none" : join(CACHE, "random-768x12"));
    const check = new Check(settings, started);
    await check.copies(model);
    await check.model(model);
    if (wanted !== "none") {
      const ready = await check.part("random weights", "-", "model folder", async () => ({
        found: await readyRandomModel(wanted, flags.python),
      }));
      if (ready) await check.model(wanted);
    }
    const report = {
      format_version: 1 as const,
      environment: environment(),
      ...check.result(),
      flags: process.argv.slice(2).join(" "),
      length: flags.length,
      steps: settings.steps,
      seconds: (performance.now() - started) / 1000,
    };
    mkdirSync(flags.out, { recursive: true });
    writeFileSync(join(flags.out, "device-check.json"), `${JSON.stringify(report, null, 2)}\n`);
    writeFileSync(join(flags.out, "device-check.md"), markdown(report));
    console.log(`\n${markdown(report)}`);
    return report.checks.some(({ holds }) => holds === false) ? 1 : 0;
  },
);
