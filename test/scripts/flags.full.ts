/** Every script of package.json says what it takes, and refuses what it does not take in one line. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const { scripts } = JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8")) as {
  scripts: Record<string, string>;
};

/**
 * Scripts of ours: the last command of each, without what is built before it. Others are programs of
 * packages.
 */
const OURS = Object.entries(scripts).flatMap(([name, script]) => {
  const command = script.split("&&").at(-1)!.trim();
  return /^(node --import tsx \S+\.ts|\S+\.sh)/.test(command) ? [[name, command] as const] : [];
});

function run(command: string, flag: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const [program = "", ...args] = [...command.split(" "), flag];
  return new Promise((resolve) => {
    execFile(program, args, { cwd: PACKAGE_ROOT, timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }),
    );
  });
}

test("there are scripts to try", () => assert.ok(OURS.length > 15, `${OURS.length}`));

for (const [name, command] of OURS)
  test(`npm run ${name}: --nonsense is one line and code 2, --help explains`, async () => {
    const wrong = await run(command, "--nonsense");
    assert.equal(wrong.code, 2, wrong.stderr);
    assert.match(wrong.stderr, /^[^\n]*--nonsense[^\n]*\n$/);
    assert.equal(wrong.stdout, "");
    const help = await run(command, "--help");
    assert.equal(help.code, 0, help.stderr);
    assert.match(help.stdout, /npm (run|test)|Usage: /);
  });
