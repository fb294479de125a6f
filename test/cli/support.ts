/** The command line as a process. */

import { execFile } from "node:child_process";
import { join } from "node:path";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

/** Arguments of Node that run the command line from its sources. */
export const ENTRY = ["--import", "tsx", join(PACKAGE_ROOT, "src", "main.ts")];

/** How a run ended. */
export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the command line to its end. */
export function didi(args: string[], env: Record<string, string> = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [...ENTRY, ...args],
      { cwd: PACKAGE_ROOT, env: { ...process.env, ...env } },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}
