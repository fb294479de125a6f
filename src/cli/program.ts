/**
 * The commands of the command line. The code of a command is imported when it runs, so that help and errors
 * are quick.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Command, Option, type OutputConfiguration } from "commander";
import { PACKAGE_ROOT } from "../package-root.ts";
import { applyDeprecatedFlags, refuseUselessFlags } from "./check-flags.ts";
import {
  CHECK_OPTIONS,
  CONVERT_OPTIONS,
  GENERATE_OPTIONS,
  KEYS_ADD_OPTIONS,
  KEYS_LIST_OPTIONS,
  KEYS_REVOKE_OPTIONS,
  type KeysConfig,
  VERIFY_OPTIONS,
} from "./command-options.ts";
import type { ConvertConfig } from "./commands/convert.ts";
import type { DoctorConfig } from "./commands/doctor.ts";
import type { GenerateConfig } from "./commands/generate.ts";
import type { CheckConfig } from "./commands/model-check.ts";
import type { VerifyConfig } from "./commands/verify.ts";
import { MODEL_OPTIONS, SERVE_OPTIONS, type ServeConfig } from "./options.ts";
import { unsetVariable } from "./parsers.ts";

const examples = (...lines: string[]) => `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}`;

/** Make a command throw instead of exiting, and print its errors in one line. */
function configureErrors(command: Command, output: OutputConfiguration): void {
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
  for (const child of command.commands) configureErrors(child, output);
}

const loadKeys = () => import("./commands/keys.ts");

/**
 * Build the command line. Parsing throws CommanderError if it is wrong, or after printing help; `output`
 * replaces the standard streams for both.
 */
export function buildProgram(output: OutputConfiguration = {}): Command {
  const program = new Command("didi-serve")
    .description("A server for few-step masked-diffusion language models.")
    .version(JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8")).version)
    .addHelpText("after", examples("didi-serve serve", "didi-serve serve --help"));
  const add = (parent: Command, name: string, description: string, options: readonly Option[] = []) => {
    const command = parent.command(name).description(description);
    for (const option of options) {
      unsetVariable(option);
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

  add(program, "generate", "run one request in the terminal", GENERATE_OPTIONS)
    .argument("[prompt...]", "text to continue, in quotes; with {{mask:N}} in it, a template")
    .addHelpText(
      "after",
      examples(
        'didi-serve generate "Once upon a time" --steps 32 --show-steps',
        'didi-serve generate "The {{mask:4}} sat on {{mask:6}}." --n 3',
        'didi-serve generate "Once upon a time" --seed 7 --json > answer.json',
      ),
    )
    .action(async (words: string[], config: GenerateConfig) => {
      const { generate } = await import("./commands/generate.ts");
      return generate(words, config);
    });

  add(program, "verify", "compute an answer again from its receipt and compare", VERIFY_OPTIONS)
    .argument("<file>", "JSON file of an answer or of its receipt; - reads standard input")
    .addHelpText(
      "after",
      "\nExits with 0 if the answers are equal, 1 if they differ.\n" +
        examples("didi-serve verify answer.json", "didi-serve verify - < answer.json"),
    )
    .action(async (file: string, config: VerifyConfig) => {
      const { verify } = await import("./commands/verify.ts");
      process.exitCode = await verify(file, config);
    });

  add(program, "doctor", "report the machine's abilities, and whether and where the model runs", [
    ...MODEL_OPTIONS,
    new Option("--json", "print the report as JSON").default(false),
  ])
    .addHelpText(
      "after",
      "\nExits with 0 if the model runs, 1 if it does not.\n" +
        examples("didi-serve doctor", "didi-serve doctor --device cuda --json"),
    )
    .action(async (config: DoctorConfig) => {
      const { doctor } = await import("./commands/doctor.ts");
      process.exitCode = await doctor(config);
    });

  const model = add(program, "model", "list, check and convert models").addHelpText(
    "after",
    examples("didi-serve model list", "didi-serve model check stories-didi"),
  );
  add(model, "list", "list the models under models/ by the names for --model", [
    new Option("--json", "print the models as JSON").default(false),
  ])
    .addHelpText("after", examples("didi-serve model list", "didi-serve model list --json"))
    .action(async (config: { json: boolean }) => {
      const { printModels } = await import("./commands/model-list.ts");
      return printModels(config.json);
    });

  add(model, "check", "check a model folder: manifest, files and tokenizer; run each graph", CHECK_OPTIONS)
    .argument("<name|folder>", "name of a model under models/, or path of a model folder")
    .addHelpText(
      "after",
      "\nPrints a line for each check; exits with 1 at the first fault.\n" +
        examples("didi-serve model check stories-didi", "didi-serve model check ./my-model --device cuda"),
    )
    .action(async (nameOrFolder: string, config: CheckConfig) => {
      const { checkModel } = await import("./commands/model-check.ts");
      return checkModel(nameOrFolder, config);
    });

  add(
    model,
    "convert",
    "convert a published checkpoint (safetensors) to a model folder; needs Python with PyTorch",
    CONVERT_OPTIONS,
  )
    .addHelpText(
      "after",
      examples(
        "didi-serve model convert --from didi-instruct-small --out models/didi-instruct-small",
        "didi-serve model convert --from LLaDA-8B-Instruct --out models/llada-8b --precision int8",
      ),
    )
    .action(async (config: ConvertConfig) => {
      const { convert } = await import("./commands/convert.ts");
      process.exitCode = await convert(config);
    });

  const keys = add(program, "keys", "add, list and revoke API keys").addHelpText(
    "after",
    examples("didi-serve keys add --file keys.jsonl --id alice", "didi-serve keys list --file keys.jsonl"),
  );
  add(keys, "add", "create a key and print it once; the file holds a salted hash", KEYS_ADD_OPTIONS)
    .addHelpText(
      "after",
      examples(
        "didi-serve keys add --file keys.jsonl --id alice",
        "didi-serve keys add --file keys.jsonl --id bob --expires 2027-01-31 --requests-per-minute 60",
      ),
    )
    .action(async (config: KeysConfig) => (await loadKeys()).addKey(config));
  add(keys, "list", "list the keys of a file with their limits", KEYS_LIST_OPTIONS)
    .addHelpText("after", examples("didi-serve keys list --file keys.jsonl"))
    .action(async (config: { file: string; json: boolean }) => (await loadKeys()).listKeys(config));
  add(keys, "revoke", "revoke a key: remove it from the file", KEYS_REVOKE_OPTIONS)
    .alias("remove")
    .addHelpText("after", examples("didi-serve keys revoke --file keys.jsonl --id alice"))
    .action(async (config: KeysConfig) => (await loadKeys()).revokeKey(config));

  configureErrors(program, output);
  return program;
}
