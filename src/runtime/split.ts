/** Whether calls are divided over several processes. */

import { readdir, readFile, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { StartupError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { Split } from "./pool.ts";

/** Parts that `auto` divides calls into. */
const AUTO_PARTS = 2;
/** Bytes of weights up to which `auto` has every process hold a copy. */
const AUTO_MOST_BYTES = 128 << 20;

/** Bytes of the weights that a process holds on the CPU. */
async function weightBytes({ folder, manifest, precision }: Model): Promise<number> {
  const data = manifest.data?.[precision.cpu];
  const files = [
    ...Object.values(manifest.graphs).map((graph) => graph[precision.cpu]!),
    ...(data ? [data] : []),
  ];
  const sizes = await Promise.all(files.map(async ({ file }) => (await stat(join(folder, file))).size));
  return sizes.reduce((a, b) => a + b, 0);
}

const CPUS = "/sys/devices/system/cpu";

/** Cores, as ONNX Runtime counts them: not their hardware threads. Where the system does not say, what Node may use. */
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
 * The processes over which calls are divided, if any: those asked for, or, for `auto`, two if the model is small, there is one
 * runtime and its threads can be shared. Throws StartupError if calls of several runtimes should be divided.
 */
export async function splitOf(
  choice: number | "auto",
  model: Model,
  threads: number,
  runtimes: number,
): Promise<Split | undefined> {
  const all = threads || (await cores());
  const share = (parts: number) => ({ parts, threads: Math.max(1, Math.floor(all / parts)) });
  if (choice === 1) return undefined;
  if (choice !== "auto") {
    if (runtimes > 1)
      throw new StartupError(
        `--split ${choice} needs --runtimes 1: calls of several runtimes run side by side already`,
      );
    return share(choice);
  }
  const pays = runtimes === 1 && all >= AUTO_PARTS && (await weightBytes(model)) <= AUTO_MOST_BYTES;
  return pays ? share(AUTO_PARTS) : undefined;
}
