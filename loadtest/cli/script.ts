/** The command line of every script: `--help` prints the usage, a wrong flag is one line and exit code 2. */

import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { StartupError } from "../../src/errors.ts";

/** Return a flag. `parse` turns its text into a value; without `fallback` the flag may be absent. */
export function flag(
  flags: string,
  description: string,
  parse?: (text: string) => unknown,
  fallback?: unknown,
): Option {
  const option = new Option(flags, description);
  if (parse) option.argParser(parse);
  return fallback === undefined ? option : option.default(fallback, [fallback].flat().join(","));
}

/** Return a parser of comma-separated lists without duplicates; `item` parses a part. */
export const list =
  <T>(item: (text: string) => T) =>
  (text: string): T[] => [...new Set(text.split(",").map((part) => item(part.trim())))];

/** Return a parser of a choice. */
export const oneOf =
  <T extends string>(choices: readonly T[]) =>
  (text: string): T => {
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw new InvalidArgumentError(`It must be one of ${choices.join(", ")}.`);
    return choice;
  };

/** The flag `--python`, for commands that run the training code. */
export const PYTHON = flag("--python <program>", "Python with training/requirements.txt installed")
  .env("DIDI_PYTHON")
  .default("python3");

/**
 * Parse the command line, run the command and exit, even with open handles. A wrong flag exits with 2 and a
 * StartupError with its own code, after one line on standard error.
 */
export async function runProgram(program: Command, argv = process.argv.slice(2)): Promise<never> {
  for (const command of [program, ...program.commands])
    command.exitOverride().configureOutput({
      // Keep the suggestion on the same line.
      outputError: (text, write) => write(text.replaceAll("\n(", " (")),
    });
  try {
    await program.parseAsync(argv, { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
    if (!(error instanceof StartupError)) throw error;
    console.error(`${program.name()}: ${error.message}`);
    process.exit(error.exitCode);
  }
  process.exit();
}

/**
 * Run a script that has no commands. `run` gets the flags and resolves with the exit code.
 *
 *     const kills = flag("--kills <n>", "workers to kill", integer(1, 1e6), 500);
 *     await script("kills", "Kill workers.", [kills], run);
 */
export function script<Flags extends object>(
  name: string,
  description: string,
  options: readonly Option[],
  run: (flags: Flags) => Promise<number>,
): Promise<never> {
  const program = new Command(`npm run ${name} --`).description(description).usage("[flags]");
  for (const option of options) program.addOption(option);
  program.action(async (flags: Flags) => {
    process.exitCode = await run(flags);
  });
  return runProgram(program);
}

/** Return a signal that Ctrl-C aborts; a second Ctrl-C exits at once. */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write(
      "\nStopping with a report of the results so far. Press Ctrl-C again to stop at once.\n",
    );
    controller.abort();
  };
  process.on("SIGINT", interrupt).on("SIGTERM", interrupt);
  return controller.signal;
}
