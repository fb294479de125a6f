#!/usr/bin/env node
/** The command line: didi-serve serve | generate | verify | model convert. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, CommanderError, Option } from "commander";
import { CONVERT_OPTIONS, type ConvertConfig, convert } from "./cli/convert.ts";
import { type GenerateConfig, generate } from "./cli/generate.ts";
import { serve } from "./cli/serve.ts";
import { type VerifyConfig, verify } from "./cli/verify.ts";
import {
  decimal,
  integer,
  MODEL_OPTIONS,
  SERVE_OPTIONS,
  type ServeConfig,
  VERIFY_OPTIONS,
} from "./config.ts";
import { StartupError } from "./errors.ts";
import { PACKAGE_ROOT } from "./package-root.ts";

const program = new Command("didi-serve")
  .description("A server for few-step masked-diffusion language models.")
  .version(JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8")).version);

const serveCommand = program
  .command("serve")
  .description("answer POST /generate and stream denoising steps over WebSockets")
  .addHelpText("after", "\nExample:\n  didi-serve serve --port 8000 --device cpu")
  .action((config: ServeConfig) => serve(config));
for (const option of SERVE_OPTIONS) serveCommand.addOption(option);

const generateCommand = program
  .command("generate")
  .description("generate once, in the terminal")
  .argument("<prompt>", "text to continue; may be empty")
  .addOption(
    new Option("--length <n>", "new tokens (default: 128, or what fits)").argParser(integer(1, 1 << 20)),
  )
  .addOption(new Option("--steps <n>", "step budget").argParser(integer(1, 1024)).default(16))
  .addOption(new Option("--seed <n>", "drawn when absent").argParser(integer(0, Number.MAX_SAFE_INTEGER)))
  .addOption(
    new Option(
      "--temperature <x>",
      "0 takes the most likely token (default: 1, or the model's own with guidance)",
    ).argParser(decimal(0, 2)),
  )
  .addOption(
    new Option("--top-k <n>", "draw from so many of the likeliest tokens; 0 from all")
      .argParser(integer(0, 1 << 20))
      .default(0),
  )
  .addOption(
    new Option("--top-p <x>", "draw from the fewest tokens that add up to this probability")
      .argParser(decimal(1e-6, 1))
      .default(1),
  )
  .addOption(
    new Option("--order <order>", "which positions a step reveals")
      .choices(["random", "confidence"])
      .default("random"),
  )
  .addOption(
    new Option("--guidance <mode>", "rgas guides with the model's discriminator")
      .choices(["none", "rgas"])
      .default("none"),
  )
  .option("--show-steps", "draw each denoising step in place", false)
  .option("--json", "print the whole answer as JSON", false)
  .addHelpText("after", '\nExample:\n  didi-serve generate "Once upon a time" --steps 16 --show-steps')
  .action((prompt: string, config: GenerateConfig) => generate(prompt, config));
for (const option of MODEL_OPTIONS) generateCommand.addOption(option);

const verifyCommand = program
  .command("verify")
  .description("compute an answer again from its receipt, and say whether it is the same")
  .argument("<file>", "JSON of a receipt, or of an answer with one; - reads standard input")
  .addHelpText("after", "\nExits with 0 if it is equal, 1 if it differs.")
  .action(async (file: string, config: VerifyConfig) => {
    process.exitCode = await verify(file, config);
  });
for (const option of VERIFY_OPTIONS) verifyCommand.addOption(option);

const modelCommand = program.command("model").description("work with models on disk");
const convertCommand = modelCommand
  .command("convert")
  .description("turn a published checkpoint (safetensors) into a model folder; needs Python with PyTorch")
  .addHelpText(
    "after",
    "\nExample:\n  didi-serve model convert --from didi-instruct-small --out models/didi-instruct-small",
  )
  .action(async (config: ConvertConfig) => {
    process.exitCode = await convert(config);
  });
for (const option of CONVERT_OPTIONS) convertCommand.addOption(option);

// Commander exits with 1 for a wrong command line; here that is 2, and 1 is for what the machine lacks.
for (const command of [program, ...program.commands, ...modelCommand.commands])
  command.exitOverride().configureOutput({
    outputError: (text, write) =>
      write(
        `${text
          .replace(/^error: /, "didi-serve: ")
          .trim()
          .replaceAll("\n", " ")}\n`,
      ),
  });

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  if (!(error instanceof StartupError)) throw error;
  console.error(`didi-serve: ${error.message}`);
  process.exit(error.exitCode);
}
