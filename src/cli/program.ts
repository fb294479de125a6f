/**
 * The tree of commands: what the command line understands, and what each command runs.
 *
 * A command's code is imported when the command runs: help and faults need no server.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, Option, type OutputConfiguration } from "commander";
import { PACKAGE_ROOT } from "../package-root.ts";
import type { ConvertConfig } from "./commands/convert.ts";
import type { DoctorConfig } from "./commands/doctor.ts";
import type { GenerateConfig } from "./commands/generate.ts";
import type { CheckConfig } from "./commands/model-check.ts";
import type { VerifyConfig } from "./commands/verify.ts";
import {
  CHECK_OPTIONS,
  CONVERT_OPTIONS,
  decimal,
  integer,
  KEYS_ADD_OPTIONS,
  KEYS_LIST_OPTIONS,
  KEYS_REMOVE_OPTIONS,
  type KeysConfig,
  MODEL_OPTIONS,
  SERVE_OPTIONS,
  type ServeConfig,
  unsetIfNo,
  VERIFY_OPTIONS,
} from "./options.ts";
import { applyDeprecatedFlags, refuseUselessFlags } from "./useless-flags.ts";

/** Flags of `generate` beside those of where the model runs. */
const GENERATE_OPTIONS: readonly Option[] = [
  new Option("--length <n>", "new tokens (default: 128, or what fits)").argParser(integer(1, 1 << 20)),
  new Option("--steps <n>", "step budget").argParser(integer(1, 1024)).default(16),
  new Option("--seed <n>", "drawn when absent").argParser(integer(0, Number.MAX_SAFE_INTEGER)),
  new Option(
    "--temperature <x>",
    "0 takes the most likely token (default: 1, or the model's own with guidance)",
  ).argParser(decimal(0, 2)),
  new Option("--top-k <n>", "draw from so many of the likeliest tokens; 0 from all")
    .argParser(integer(0, 1 << 20))
    .default(0),
  new Option("--top-p <x>", "draw from the fewest tokens that add up to this probability")
    .argParser(decimal(1e-6, 1))
    .default(1),
  new Option("--order <order>", "which positions a step reveals")
    .choices(["random", "confidence"])
    .default("random"),
  new Option("--guidance <mode>", "rgas guides with the model's discriminator")
    .choices(["none", "rgas"])
    .default("none"),
  new Option("--show-steps", "draw each denoising step in place").default(false),
  new Option("--json", "print the whole answer as JSON").default(false),
  ...MODEL_OPTIONS,
];

const examples = (...lines: string[]) => `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}`;

/** Commander exits with 1 for a wrong command line; here that is 2, and 1 is for what the machine lacks. */
function inOneLine(command: Command, output: OutputConfiguration): void {
  command.exitOverride().configureOutput({
    ...output,
    outputError: (text, write) =>
      write(
        `${text
          .replace(/^error: /, "didi-serve: ")
          .trim()
          .replaceAll("\n", " ")}\n`,
      ),
  });
  for (const child of command.commands) inOneLine(child, output);
}

const loadKeys = () => import("./commands/keys.ts");

/**
 * Build the tree. Parsing throws CommanderError where the command line is wrong or help was asked for; `output`
 * says where that is written instead of the standard streams.
 */
export function buildProgram(output: OutputConfiguration = {}): Command {
  const program = new Command("didi-serve")
    .description("A server for few-step masked-diffusion language models.")
    .version(JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8")).version)
    .addHelpText("after", examples("didi-serve serve", "didi-serve serve --help"));
  const add = (parent: Command, name: string, description: string, options: readonly Option[] = []) => {
    const command = parent.command(name).description(description);
    for (const option of options) {
      unsetIfNo(option);
      command.addOption(option);
    }
    return command;
  };

  add(program, "serve", "answer POST /generate and stream denoising steps over WebSockets", SERVE_OPTIONS)
    .addHelpText(
      "after",
      examples(
        "didi-serve serve --port 8000 --device cpu",
        "didi-serve serve --model ./my-model --workers 2 --threads 4",
        "DIDI_PORT=8000 DIDI_LOG_LEVEL=warn didi-serve serve",
        "didi-serve serve --host 0.0.0.0 --api-keys keys.jsonl --tls-cert cert.pem --tls-key key.pem",
      ),
    )
    .action(async (config: ServeConfig, command: Command) => {
      const given = (name: keyof ServeConfig) =>
        !["default", undefined].includes(command.getOptionValueSource(name));
      refuseUselessFlags(config, given);
      applyDeprecatedFlags(config, given);
      const { serve } = await import("./commands/serve.ts");
      return serve(config);
    });

  add(program, "generate", "generate once, in the terminal", GENERATE_OPTIONS)
    .argument("<prompt>", "text to continue; may be empty")
    .addHelpText(
      "after",
      examples(
        'didi-serve generate "Once upon a time" --steps 16 --show-steps',
        'didi-serve generate "Once upon a time" --seed 7 --json > answer.json',
      ),
    )
    .action(async (prompt: string, config: GenerateConfig) => {
      const { generate } = await import("./commands/generate.ts");
      return generate(prompt, config);
    });

  add(
    program,
    "verify",
    "compute an answer again from its receipt, and say whether it is the same",
    VERIFY_OPTIONS,
  )
    .argument("<file>", "JSON of a receipt, or of an answer with one; - reads standard input")
    .addHelpText(
      "after",
      `\nExits with 0 if it is equal, 1 if it differs.\n${examples("didi-serve verify answer.json", "didi-serve verify - < answer.json")}`,
    )
    .action(async (file: string, config: VerifyConfig) => {
      const { verify } = await import("./commands/verify.ts");
      process.exitCode = await verify(file, config);
    });

  add(program, "doctor", "say what this machine has, and where and how it would run a model", [
    ...MODEL_OPTIONS,
    new Option("--json", "print the report as JSON").default(false),
  ])
    .addHelpText(
      "after",
      `\nExits with 0 if the model runs, 1 if it does not.\n${examples("didi-serve doctor", "didi-serve doctor --device cuda --json")}`,
    )
    .action(async (config: DoctorConfig) => {
      const { doctor } = await import("./commands/doctor.ts");
      process.exitCode = await doctor(config);
    });

  const model = add(program, "model", "work with models on disk").addHelpText(
    "after",
    examples("didi-serve model list", "didi-serve model check stories-didi"),
  );
  add(model, "list", "the models under models/, by the name that --model takes", [
    new Option("--json", "print them as JSON").default(false),
  ])
    .addHelpText("after", examples("didi-serve model list", "didi-serve model list --json"))
    .action(async (config: { json: boolean }) => {
      const { printModels } = await import("./commands/model-list.ts");
      return printModels(config.json);
    });

  add(
    model,
    "check",
    "check a model folder: manifest, every file, tokenizer, and each graph by running it",
    CHECK_OPTIONS,
  )
    .argument("<name|folder>", "a model under models/, or a path to a folder")
    .addHelpText(
      "after",
      `\nPrints a line for each check; exits with 1 at the first fault.\n${examples("didi-serve model check stories-didi", "didi-serve model check ./my-model --device cuda")}`,
    )
    .action(async (nameOrFolder: string, config: CheckConfig) => {
      const { checkModel } = await import("./commands/model-check.ts");
      return checkModel(nameOrFolder, config);
    });

  add(
    model,
    "convert",
    "turn a published checkpoint (safetensors) into a model folder; needs Python with PyTorch",
    CONVERT_OPTIONS,
  )
    .addHelpText(
      "after",
      examples(
        "didi-serve model convert --from didi-instruct-small --out models/didi-instruct-small",
        "didi-serve model convert --from mdlm-owt --kind mdlm --out models/mdlm-owt --precision fp32 fp16",
      ),
    )
    .action(async (config: ConvertConfig) => {
      const { convert } = await import("./commands/convert.ts");
      process.exitCode = await convert(config);
    });

  const keys = add(program, "keys", "work with a file of API keys").addHelpText(
    "after",
    examples("didi-serve keys add --file keys.jsonl --id alice", "didi-serve keys list --file keys.jsonl"),
  );
  add(keys, "add", "make a key and print it, once; the file keeps a salted hash", KEYS_ADD_OPTIONS)
    .addHelpText(
      "after",
      examples(
        "didi-serve keys add --file keys.jsonl --id alice",
        "didi-serve keys add --file keys.jsonl --id bob --requests-per-minute 60 --concurrent-requests 4",
      ),
    )
    .action(async (config: KeysConfig) => (await loadKeys()).addKey(config));
  add(keys, "list", "the keys of a file, and their limits", KEYS_LIST_OPTIONS)
    .addHelpText("after", examples("didi-serve keys list --file keys.jsonl"))
    .action(async (config: { file: string; json: boolean }) => (await loadKeys()).listKeys(config));
  add(keys, "remove", "remove a key", KEYS_REMOVE_OPTIONS)
    .addHelpText("after", examples("didi-serve keys remove --file keys.jsonl --id alice"))
    .action(async (config: KeysConfig) => (await loadKeys()).removeKey(config));

  inOneLine(program, output);
  return program;
}
