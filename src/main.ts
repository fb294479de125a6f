#!/usr/bin/env node
/** The command line. */

import { run } from "./cli/run.ts";

const code = await run(process.argv.slice(2));
// A failed command exits at once, even with an open connection to Redis.
if (code !== 0) process.exit(code);
