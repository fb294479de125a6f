/**
 * Run the tests: `npm test` and `npm run test:full`.
 *
 *   node --import tsx test/run.ts [--full] [--concurrency N] [PART ...]
 *
 * Files named `*.test.ts` run by default; `--full` runs the slow ones, `*.full.ts`, instead. A PART selects
 * the files whose path contains it. Every test has a time limit (test/limit.ts), and so has every file: none
 * waits for ever.
 */

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

/** Time limits in milliseconds: of one test, and of one file of tests. */
const LIMITS = { quick: { test: 60_000, file: 240_000 }, full: { test: 300_000, file: 600_000 } };

/** Return the arguments; print the usage for --help, and one line for a flag that there is not. */
function readArguments() {
  try {
    const options = {
      full: { type: "boolean", default: false },
      concurrency: { type: "string" },
      help: { type: "boolean", default: false },
    } as const;
    const read = parseArgs({ allowPositionals: true, options });
    if (!read.values.help) return read;
    console.log("npm test [-- PART ...]\nnpm run test:full [-- PART ...]");
    process.exit(0);
  } catch (error) {
    console.error(`npm test: ${(error as Error).message.split(". ")[0]}; --help shows what there is`);
    process.exit(2);
  }
}
const { values, positionals } = readArguments();

const root = dirname(fileURLToPath(import.meta.url));
const ending = values.full ? ".full.ts" : ".test.ts";
const files = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(ending) && !file.split(sep).includes("node_modules"))
  .map((file) => join("test", file))
  .filter((file) => positionals.length === 0 || positionals.some((part) => file.includes(part)))
  .sort();
if (files.length === 0) {
  console.error(`no file *${ending} under test/ matches ${positionals.join(", ") || "anything"}`);
  process.exit(2);
}

const limits = values.full ? LIMITS.full : LIMITS.quick;
const { status, signal } = spawnSync(
  process.execPath,
  [
    ...["--import", "tsx", "--import", pathToFileURL(join(root, "limit.ts")).href, "--test"],
    `--test-concurrency=${values.concurrency ?? (values.full ? 1 : 2)}`,
    `--test-timeout=${limits.file}`,
    ...files,
  ],
  {
    stdio: "inherit",
    cwd: dirname(root),
    env: { ...process.env, DIDI_TEST_LIMIT_MS: String(limits.test) },
  },
);
process.exit(status ?? (signal ? 1 : 0));
