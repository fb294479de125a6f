/** How many files and connections the system lets this process have open. */

import { readdirSync, readFileSync } from "node:fs";
import { StartupError } from "../errors.ts";

/** Fewer are not enough to load a model and to replace a worker. */
const LEAST = 128;
/** Kept free of connections: a worker that is replaced takes some. */
const RESERVE = 48;

/** The limit; undefined if there is none, or the system does not say (it does on Linux). */
function openFileLimit(): number | undefined {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}

/** Throws StartupError if a server could not work under the limit. */
export function checkOpenFiles(): void {
  const limit = openFileLimit();
  if (limit !== undefined && limit < LEAST)
    throw new StartupError(
      `this process may have only ${limit} files open, and needs ${LEAST} or more: raise the limit (ulimit -n 4096)`,
    );
}

/** Connections that there is room for beside what is open now; undefined if there is no limit. */
export function roomForConnections(): number | undefined {
  const limit = openFileLimit();
  return limit === undefined ? undefined : Math.max(1, limit - RESERVE - readdirSync("/proc/self/fd").length);
}
