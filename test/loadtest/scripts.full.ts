/** The command lines of all scripts. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

/** Every script of the project that takes flags, from the folder of the project. */
const SCRIPTS = [
  ...["loadtest/main", "loadtest/bench/main", "loadtest/bench/full", "loadtest/bench/replicas"],
  ...["loadtest/chaos/main", "loadtest/overload/main", "loadtest/overload/soak", "loadtest/kills"],
  ...["loadtest/conformance", "test/contract/main", "scripts/docs", "scripts/screenshot"],
  "scripts/denoising-picture",
];

/** Run a script to its end; return how it ended. */
async function runScript(script: string, flag: string) {
  const child = spawn(process.execPath, ["--import", "tsx", `${script}.ts`, flag], { cwd: PACKAGE_ROOT });
  const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
  return { code: child.exitCode, output, errors };
}

for (const script of SCRIPTS)
  test(`${script}: --help prints the usage and no more, an unknown flag is one line and exit code 2`, async () => {
    const [help, wrong] = await Promise.all([runScript(script, "--help"), runScript(script, "--nonsense")]);
    assert.deepEqual([help.code, help.errors], [0, ""]);
    assert.match(help.output, /^Usage: /);
    assert.deepEqual([wrong.code, wrong.output], [2, ""]);
    assert.match(wrong.errors, /^error: unknown option '--nonsense'[^\n]*\n$/);
  });
