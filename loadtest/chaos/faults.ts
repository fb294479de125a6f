/** The faults that are done to processes that run ONNX Runtime. Linux. */

import { execFile } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Names of the faults; FAULTS has what each does. */
export const KINDS = ["kill", "freeze", "memory", "nan"] as const;
export type FaultKind = (typeof KINDS)[number];

/** End the process at once, as the kernel does when memory runs out. */
async function kill(pid: number): Promise<void> {
  process.kill(pid, "SIGKILL");
}

/** Stop every thread: the process lives and does nothing. */
async function freeze(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
}

/** Limit the process to the memory that it has now. */
async function memory(pid: number): Promise<void> {
  const bytes = Number(/VmSize:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) * 1024;
  await run("prlimit", ["--pid", String(pid), `--as=${bytes}:`]);
}

/** Wait until every thread of a process that was sent SIGSTOP has stopped. */
async function untilStopped(pid: number): Promise<void> {
  const stopped = (task: string) =>
    /^\d+ \(.*\) [TtZX]/s.test(readFileSync(`/proc/${pid}/task/${task}/stat`, "utf8"));
  while (!readdirSync(`/proc/${pid}/task`).every(stopped)) await sleep(1);
}

/** Numbers of epoll_wait and epoll_pwait, in which a process waits for its next batch, on x86-64 and on arm64. */
const WAITING = new Set(process.arch === "arm64" ? ["22"] : ["232", "281"]);
/** How often a process that runs a batch is continued and stopped again. */
const TRIES = 2000;

/** Stop a process between two batches. Reject if it never is between two. */
async function stopBetweenPasses(pid: number): Promise<void> {
  for (let left = TRIES; left > 0; left--) {
    process.kill(pid, "SIGSTOP");
    await untilStopped(pid);
    // The first thread runs the batches.
    const [call] = readFileSync(`/proc/${pid}/syscall`, "utf8").split(" ");
    if (WAITING.has(call!)) return;
    process.kill(pid, "SIGCONT");
    await sleep(1);
  }
  throw new Error(`process ${pid} was never between two passes`);
}

/**
 * Writes NaN over the weights in its memory, those of the file that is mapped; the file stays as it is. It is done between
 * two passes: one whose weights change on the way may give numbers that are finite and wrong, and nothing can see that.
 */
async function nan(pid: number): Promise<void> {
  const maps = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  const weights = maps.filter((line) => /\.safetensors$/.test(line));
  if (weights.length === 0) throw new Error(`process ${pid} has mapped no weights`);
  const memory = openSync(`/proc/${pid}/mem`, "r+");
  try {
    await stopBetweenPasses(pid);
    for (const line of weights) {
      const [start, end] = line
        .split(" ", 1)[0]!
        .split("-")
        .map((hex) => Number.parseInt(hex, 16));
      const numbers = new Float32Array((end! - start!) / 4).fill(Number.NaN);
      writeSync(memory, new Uint8Array(numbers.buffer), 0, numbers.byteLength, start!);
    }
  } finally {
    closeSync(memory);
    process.kill(pid, "SIGCONT");
  }
}

/** Each does its fault to the process of that id. Reject if it cannot. */
export const FAULTS: Record<FaultKind, (pid: number) => Promise<void>> = { kill, freeze, memory, nan };

/** Remove the limit on a process's memory. */
export async function relieve(pid: number): Promise<void> {
  await run("prlimit", ["--pid", String(pid), "--as=unlimited:"]).catch(() => {});
}
