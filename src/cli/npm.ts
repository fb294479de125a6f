/**
 * Notices that npm, which started this process, has ended.
 *
 * npm runs a script through a shell and sends SIGTERM to the shell alone. Where the shell does not pass it on
 * (dash), or npm is killed, a server would go on without anyone who can stop it.
 */

import { readFileSync } from "node:fs";

const EVERY_MS = 500;
const SCRIPTS = ["start", "didi-serve"];

/** Return the process that started this one, and on Linux the one before it: the shell and npm. */
function ancestors(): string {
  const parent = process.ppid;
  try {
    return `${parent} ${/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${parent}/status`, "utf8"))?.[1]}`;
  } catch {
    return String(parent);
  }
}

/** Call `ended` once npm or its shell has ended; never if no `npm start` started this process. */
export function whenNpmEnds(ended: () => void): void {
  if (!SCRIPTS.includes(process.env.npm_lifecycle_event ?? "")) return;
  const atStart = ancestors();
  const timer = setInterval(() => {
    if (ancestors() === atStart) return;
    clearInterval(timer);
    ended();
  }, EVERY_MS);
  timer.unref();
}
