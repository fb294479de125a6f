/** `npm run loadtest`: parses the command line, and turns what goes wrong into one line and an exit code. */

import { CommanderError } from "commander";
import { StartupError } from "../src/errors.ts";
import { buildProgram } from "./cli/program.ts";

const argv = process.argv.slice(2);
try {
  await buildProgram(argv).parseAsync(argv, { from: "user" });
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  if (!(error instanceof StartupError)) throw error;
  console.error(`loadtest: ${error.message}`);
  process.exit(error.exitCode);
}
process.exit();
