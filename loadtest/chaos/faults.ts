/** The faults that are done to processes that run ONNX Runtime. Linux. */

import { execFile } from "node:child_process";
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Names of the faults. */
export const KINDS = ["kill", "freeze", "memory", "nan"] as const;
export type FaultKind = (typeof KINDS)[number];

/** Kill the process, as the kernel does when memory runs out. */
async function kill(pid: number): Promise<void> {
  process.kill(pid, "SIGKILL");
}

/** Stop every thread: the process stays alive and does nothing. */
async function freeze(pid: number): Promise<void> {
  process.kill(pid, "SIGSTOP");
}

/** Limit the process to its current memory. */
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

/**
 * System calls in which a worker waits for its next batch: epoll_wait and epoll_pwait on x86-64 and on arm64.
 */
const WAITING = new Set(process.arch === "arm64" ? ["22"] : ["232", "281"]);
/** Attempts to stop a process while no batch runs. */
const TRIES = 2000;

/** Stop a process between two batches. Rejects if all attempts fail. */
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
  throw new Error(`process ${pid} never waited for a batch`);
}

/**
 * Write NaN over the mapped weights in the memory of the process; the file does not change. This happens
 * between two batches: a batch whose weights change while it runs may give finite but wrong numbers, which
 * cannot be detected.
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

/** Cause a fault in the process with this id. Rejects if that fails. */
export const FAULTS: Record<FaultKind, (pid: number) => Promise<void>> = { kill, freeze, memory, nan };

/** Remove the memory limit of a process. */
export async function relieve(pid: number): Promise<void> {
  await run("prlimit", ["--pid", String(pid), "--as=unlimited:"]).catch(() => {});
}
