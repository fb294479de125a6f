/**
 * Signs of life of a worker.
 *
 * A call of the model blocks the thread that makes it, so a busy process and a frozen one look alike from its answers.
 * A thread of its own writes a byte twice a second to a pipe; when none comes, the whole process has stopped.
 */

import type { Readable } from "node:stream";
import { Worker } from "node:worker_threads";

/** Where the process writes, the first descriptor after the channel of its messages. */
export const HEARTBEAT_FD = 4;

const BEAT_MS = 500;
/** Beats that may fail to come, one after the other. */
const MISSED = 4;
/** The same before the first one: a machine that is busy takes its time to start a process. */
const MISSED_AT_FIRST = 60;

// As text, so that the thread loads nothing. A server that is gone reads no more: nobody is left to compute for.
const THREAD = `
const { writeSync } = require("node:fs");
const beat = () => {
  try {
    writeSync(${HEARTBEAT_FD}, ".");
  } catch {
    process.kill(process.pid, "SIGKILL");
  }
};
beat();
setInterval(beat, ${BEAT_MS});`;

/** In the worker: begins to write. */
export function beginHeartbeat(): void {
  new Worker(THREAD, { eval: true, execArgv: [], env: {} }).unref();
}

/**
 * In the server: calls `silent`, once, when the process behind `beats` has stopped. Silence is counted in turns of the
 * server's own event loop, so that a server that was held up itself blames nobody. Returns what ends the watch.
 */
export function watchHeartbeat(beats: Readable, silent: () => void): () => void {
  let left = MISSED_AT_FIRST;
  beats.on("data", () => {
    left = MISSED;
  });
  // A broken pipe means that the process is gone; its exit event deals with that.
  beats.on("error", () => {});
  const timer = setInterval(() => {
    if (left-- > 0) return;
    clearInterval(timer);
    silent();
  }, BEAT_MS);
  timer.unref();
  return () => clearInterval(timer);
}
