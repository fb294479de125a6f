/** `npm run loadtest`: the commands sweep, compare and gate. */

import { Command } from "commander";
import { decimal } from "../src/cli/parsers.ts";
import { filledIn, SWEEP_OPTIONS, type SweepConfig } from "./cli/flags.ts";
import { runProgram } from "./cli/script.ts";
import { compare, describe, gate } from "./report/compare.ts";
import { readResults } from "./report/results.ts";
import { sweep } from "./sweep/sweep.ts";

const EXAMPLES = `
Examples:
  npm run loadtest -- --quick
  npm run loadtest -- --steps 4,16,64 --concurrency 1,8,32
  npm run loadtest -- --url http://127.0.0.1:8080 --mix loadtest/traffic/mixes/short-and-long.json
  npm run loadtest -- --peers --name beside-others
  npm run loadtest -- compare results/before results/after
  npm run loadtest -- gate results/after/results.json results/before/results.json`;

/** Return the flags of a command as its `--help` lists them. */
function flagsOf(command: Command): string {
  const help = command.helpInformation();
  return help.slice(help.indexOf("Options:\n") + "Options:\n".length).trimEnd();
}

/** Build the command line; `argv` are the arguments after the program. */
function buildProgram(argv: readonly string[]): Command {
  const program = new Command("loadtest")
    .description(
      "Measure throughput and latency of a didi-serve over step budget, concurrency, length and guidance.",
    )
    .enablePositionalOptions();
  const sweeping = program.command("sweep", { isDefault: true }).description("measure (the default command)");
  for (const option of SWEEP_OPTIONS) sweeping.addOption(option);
  // `--help` without a command lists the flags of sweep as well.
  program.addHelpText("after", () => `\nFlags of sweep:\n${flagsOf(sweeping)}\n${EXAMPLES}`);
  sweeping.addHelpText("after", EXAMPLES).action(async (given: SweepConfig) => {
    const flags = argv[0] === "sweep" ? argv.slice(1) : argv;
    process.exitCode = await sweep(filledIn(given), flags);
  });

  program
    .command("compare")
    .description("print B over A for each cell, and which ratios are within noise")
    .argument("<A>", "results.json, or its folder")
    .argument("<B>", "the same")
    .action((a: string, b: string) => console.log(describe(compare(readResults(a), readResults(b)))));

  program
    .command("gate")
    .description("exit with 1 if results are worse than a baseline beyond noise")
    .argument("<results>", "results.json, or its folder")
    .argument("<baseline>", "the same")
    .option("--tolerance <share>", "largest loss of a figure that passes", decimal(0, 10), 0.05)
    .action((results: string, baseline: string, { tolerance }: { tolerance: number }) => {
      const { passed, comparison, regressions, faults } = gate(
        readResults(results),
        readResults(baseline),
        tolerance,
      );
      console.log(describe(comparison));
      for (const fault of faults) console.log(`fault: ${fault}`);
      for (const { id, figure, ratio } of regressions)
        console.log(`regression: ${id}: ${figure} is ${ratio.toPrecision(3)} times the baseline's`);
      console.log(passed ? "passed" : "failed");
      process.exitCode = passed ? 0 : 1;
    });
  return program;
}

const argv = process.argv.slice(2);
await runProgram(buildProgram(argv), argv);
