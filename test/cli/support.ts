/** Runs the command line in this process, or as a child process. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { format } from "node:util";
import { run } from "../../src/cli/run.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { ENTRY } from "../support/server.ts";

/** Arguments of Node that run the command line from its sources, from any current directory. */
export const SOURCE_ENTRY = ["--import", import.meta.resolve("tsx"), join(PACKAGE_ROOT, "src", "main.ts")];

/** The outcome of a run. */
export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Run the command line in a child process to its end. */
export function didi(args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [...ENTRY, ...args],
      { cwd: PACKAGE_ROOT },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

/**
 * Run the command line in this process, for whatever needs no process of its own: it spares the 0.5 to 2 s of
 * starting one. What it writes through `console`, and what the command line itself writes, is collected.
 */
export async function didiHere(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  const [variables, exitCode, { log, error }] = [{ ...process.env }, process.exitCode, console];
  let [stdout, stderr] = ["", ""];
  const out = (text: string) => {
    stdout += text;
  };
  const err = (text: string) => {
    stderr += text;
  };
  console.log = (...values: unknown[]) => out(`${format(...values)}\n`);
  console.error = (...values: unknown[]) => err(`${format(...values)}\n`);
  Object.assign(process.env, env);
  process.exitCode = undefined;
  try {
    const code = await run(args, { writeOut: out, writeErr: err });
    return { code: code || Number(process.exitCode ?? 0), stdout, stderr };
  } finally {
    Object.assign(console, { log, error });
    process.env = variables;
    process.exitCode = exitCode;
  }
}

/** Test that command lines are refused: with one line, and this exit code. */
export function testRefusals(
  refusals: [name: string, line: string, env: Record<string, string>, code: number, says: RegExp][],
): void {
  for (const [name, line, env, expected, says] of refusals)
    test(`${name}: one line, exit ${expected}`, async () => {
      const { code, stdout, stderr } = await didiHere(line.split(" "), env);
      assert.equal(code, expected);
      assert.match(stderr, says);
      assert.match(stderr, /^(didi-serve: loading [^\n]+\n)?didi-serve: [^\n]+\n$/);
      assert.equal(stdout, "");
    });
}
