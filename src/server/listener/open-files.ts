/** The limit on open files, which bounds the connections of the server. */

import { readdirSync, readFileSync } from "node:fs";
import { StartupError } from "../../errors.ts";

/** Descriptors needed to load a model and to replace a worker. */
const LEAST = 128;
/** Descriptors kept free of connections, for workers that are replaced. */
const RESERVE = 48;

/** Return the soft limit; undefined without one, and on systems other than Linux. */
function openFileLimit(): number | undefined {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}

/** Throw StartupError if the limit is too low for a server. */
export function checkOpenFiles(): void {
  const limit = openFileLimit();
  if (limit !== undefined && limit < LEAST)
    throw new StartupError(
      `the limit on open files is ${limit}, and the server needs ${LEAST} or more: raise it (ulimit -n 4096)`,
    );
}

/** Return how many connections the limit leaves room for; undefined without a limit. */
export function roomForConnections(): number | undefined {
  const limit = openFileLimit();
  return limit === undefined ? undefined : Math.max(1, limit - RESERVE - readdirSync("/proc/self/fd").length);
}
