#!/usr/bin/env node
/** The command line: parses it, and turns what goes wrong into one line and an exit code. */

import { CommanderError } from "commander";
import { printable } from "./cli/printable.ts";
import { buildProgram } from "./cli/program.ts";
import { StartupError } from "./errors.ts";

try {
  await buildProgram().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  const { code, syscall } = error as NodeJS.ErrnoException;
  // What the system refuses is no bug of ours: its own words name the file and the reason.
  if (!(error instanceof StartupError) && !(error instanceof Error && code && syscall)) throw error;
  console.error(`didi-serve: ${printable(error.message)}`);
  process.exit(error instanceof StartupError ? error.exitCode : 1);
}
