#!/usr/bin/env node
/** The command line. */

import { run } from "./cli/run.ts";

const code = await run(process.argv.slice(2));
// What is still open, such as a connection to Redis, does not keep a command that failed.
if (code !== 0) process.exit(code);
