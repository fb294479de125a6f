/**
 * Heartbeat of a worker.
 *
 * A graph blocks the thread that runs it, so a busy worker and a frozen one answer alike. A separate thread
 * writes a byte to a pipe twice a second; when none arrives, the whole process has stopped.
 */

import type { Readable } from "node:stream";
import { Worker } from "node:worker_threads";

/** File descriptor that the worker writes to, the first one after its IPC channel. */
export const HEARTBEAT_FD = 4;

const BEAT_MS = 500;
/** Heartbeats that may be missed in a row. */
const MISSED = 4;
/** The same before the first one, since a busy machine starts a process slowly. */
const MISSED_AT_FIRST = 60;

// As text, so that the thread loads no module. When the server is gone, the write fails and the worker ends
// itself.
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

/** Start the heartbeat of this worker. */
export function beginHeartbeat(): void {
  new Worker(THREAD, { eval: true, execArgv: [], env: {} }).unref();
}

/**
 * Call `onSilence` once when the worker that writes to `beats` has stopped. Return a function that ends the
 * watch. Missed heartbeats are counted in timers of the server's event loop, so that a blocked server does
 * not accuse its workers.
 */
export function watchHeartbeat(beats: Readable, onSilence: () => void): () => void {
  let left = MISSED_AT_FIRST;
  beats.on("data", () => {
    left = MISSED;
  });
  // A broken pipe means that the process is gone, which its exit event handles.
  beats.on("error", () => {});
  const timer = setInterval(() => {
    if (left-- > 0) return;
    clearInterval(timer);
    onSilence();
  }, BEAT_MS);
  timer.unref();
  return () => clearInterval(timer);
}
