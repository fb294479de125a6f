/** Runs one command line: every expected error is one line and an exit code. */

import { CommanderError, type OutputConfiguration } from "commander";
import { StartupError } from "../errors.ts";
import { printable } from "./output/terminal.ts";
import { buildProgram } from "./program.ts";

/**
 * Run a command; `args` are the arguments after the name of the program.
 *
 * Return 0, or the exit code of an error that was printed in one line: 2 for a wrong command line, 1
 * otherwise. A command with further exit codes, such as `verify`, sets `process.exitCode`. Rejects with an
 * error that is a bug. `output` redirects help and the errors of the command line.
 */
export async function run(args: readonly string[], output: OutputConfiguration = {}): Promise<number> {
  try {
    await buildProgram(output).parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const { code, syscall } = error as NodeJS.ErrnoException;
    // An error of the operating system is not a bug: its message names the file and the reason.
    if (!(error instanceof StartupError) && !(error instanceof Error && code && syscall)) throw error;
    console.error(`didi-serve: ${printable(error.message)}`);
    return error instanceof StartupError ? error.exitCode : 1;
  }
}
