/** Start the process of a worker. */

import { type ChildProcess, fork } from "node:child_process";
import { readdirSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { fileURLToPath } from "node:url";
import { StartupError } from "../errors.ts";
import { cudaEnvironment } from "./cuda.ts";

// The same file name in `src` (run by tsx) and in `dist`.
const WORKER = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "worker/worker.ts" : "worker/worker.js", import.meta.url),
);

/** What to do about an error of the system, by its code. */
const ADVICE: Record<string, string> = {
  EMFILE: "too many files are open: raise the limit (ulimit -n)",
  ENFILE: "the system has too many files open",
  EAGAIN: "too many processes: raise the limit (ulimit -u)",
  ENOMEM: "there is not enough memory",
};

/** Return the StartupError for a process that could not be started. */
export function cannotStart(error: Error): StartupError {
  const { code = "", message } = error as NodeJS.ErrnoException;
  return new StartupError(`cannot start a worker: ${ADVICE[code] ?? message}`);
}

/**
 * Start a process. Throws StartupError if the system refuses at once; it may also refuse in an `error` event.
 */
export function forkWorker(): ChildProcess {
  try {
    return fork(WORKER, [], {
      serialization: "advanced",
      env: cudaEnvironment(),
      stdio: ["ignore", "inherit", "inherit", "ipc", "pipe"],
    });
  } catch (error) {
    throw cannotStart(error as Error);
  }
}

/**
 * Lower the priority of a worker, so that the server's event loop runs first when cores are scarce. Call it
 * once the model is loaded, so that a replacement is ready soon.
 */
export function lowerPriority(pid: number): void {
  try {
    // On Linux each thread has its own priority.
    const ids = process.platform === "linux" ? readdirSync(`/proc/${pid}/task`).map(Number) : [pid];
    for (const id of ids) setPriority(id, constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // Without it, health checks are a little slower under load.
  }
}
