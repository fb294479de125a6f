/** Choose into how many parts workers divide a batch (`--split`). */

import { readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { weightFiles } from "../model/manifest.ts";
import type { Model } from "../model/model.ts";
import type { Split } from "./protocol.ts";

/** Parts that `auto` chooses. */
const AUTO_PARTS = 2;
/** Upper bound of a model's files, bytes, for `auto` to divide: each part holds a copy of the weights. */
const AUTO_MAX_BYTES = 128 << 20;

/** Return the bytes of the files that a session on the CPU loads. */
function bytesOf({ manifest, precision }: Model): number {
  const files = [
    ...Object.values(manifest.graphs).map((graph) => graph[precision.cpu]!),
    ...weightFiles(manifest, precision.cpu),
  ];
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}

const CPUS = "/sys/devices/system/cpu";

/**
 * Return the number of physical cores, as ONNX Runtime counts them, or what Node reports if that is unknown.
 */
async function cores(): Promise<number> {
  const usable = availableParallelism();
  try {
    const cpus = (await readdir(CPUS)).filter((name) => /^cpu\d+$/.test(name));
    const siblings = cpus.map((cpu) => readFile(join(CPUS, cpu, "topology", "thread_siblings_list"), "utf8"));
    return Math.min(usable, new Set(await Promise.all(siblings)).size);
  } catch {
    return usable;
  }
}

/**
 * Return how to divide batches; undefined to run them whole. `auto` chooses two parts for a small model with
 * at least two threads. Each part has at least one thread.
 *
 * @param threads ONNX Runtime threads of a worker; 0 means one for each core
 */
export async function splitOf(
  choice: number | "auto",
  model: Model,
  threads: number,
): Promise<Split | undefined> {
  const all = threads || (await cores());
  const pays = all >= AUTO_PARTS && bytesOf(model) <= AUTO_MAX_BYTES;
  const parts = choice === "auto" ? (pays ? AUTO_PARTS : 1) : choice;
  return parts === 1 ? undefined : { parts, threads: Math.max(1, Math.floor(all / parts)) };
}
