#!/usr/bin/env node
/** The command line: parses it, and turns what goes wrong into one line and an exit code. */

import { CommanderError } from "commander";
import { buildProgram } from "./cli/program.ts";
import { StartupError } from "./errors.ts";

try {
  await buildProgram().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  if (!(error instanceof StartupError)) throw error;
  console.error(`didi-serve: ${error.message}`);
  process.exit(error.exitCode);
}
