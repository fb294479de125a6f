/** Run one command line, and turn what goes wrong into one line and an exit code. */

import { CommanderError, type OutputConfiguration } from "commander";
import { StartupError } from "../errors.ts";
import { printable } from "./printable.ts";
import { buildProgram } from "./program.ts";

/**
 * Run the command that `args` name, without the name of the program.
 *
 * Returns 0, or the exit code of a fault that was reported in one line: 2 for a wrong command line, 1 for anything
 * else. A command that has an outcome of its own, such as `verify`, sets `process.exitCode`. Rejects with an error
 * that is a bug. `output` redirects help and faults of the command line.
 */
export async function run(args: readonly string[], output: OutputConfiguration = {}): Promise<number> {
  try {
    await buildProgram(output).parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const { code, syscall } = error as NodeJS.ErrnoException;
    // What the system refuses is no bug of ours: its own words name the file and the reason.
    if (!(error instanceof StartupError) && !(error instanceof Error && code && syscall)) throw error;
    console.error(`didi-serve: ${printable(error.message)}`);
    return error instanceof StartupError ? error.exitCode : 1;
  }
}
