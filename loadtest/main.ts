/** `npm run loadtest`. */

import { buildProgram } from "./cli/program.ts";
import { runProgram } from "./cli/script.ts";

const argv = process.argv.slice(2);
await runProgram(buildProgram(argv), argv);
