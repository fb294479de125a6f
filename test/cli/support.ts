/** The command line as a process. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { untilReady } from "../../loadtest/servers/until-ready.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

/** Arguments of Node that run the command line from its sources. */
export const ENTRY = ["--import", "tsx", join(PACKAGE_ROOT, "src", "main.ts")];

/** The same from any current directory. */
export const SOURCE_ENTRY = ["--import", import.meta.resolve("tsx"), join(PACKAGE_ROOT, "src", "main.ts")];

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

/** Starts `serve` on a free port; resolves once it says that it is ready. */
export async function serve(
  ...args: string[]
): Promise<{ child: ChildProcess; origin: string; exit: Promise<number | null> }> {
  const child = spawn(process.execPath, [...ENTRY, "serve", "--port", "0", "--threads", "1", ...args], {
    cwd: PACKAGE_ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  return { child, exit, ...(await untilReady(child)) };
}
