/** Whether calls are divided. */

import { readdir, readFile, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Model } from "../model/model.ts";
import type { Split } from "./protocol.ts";

/** Parts that `auto` divides calls into. */
const AUTO_PARTS = 2;
/** Bytes of weights up to which `auto` has every part hold a copy. */
const AUTO_MOST_BYTES = 128 << 20;

/** Bytes of the weights that sessions hold on the CPU. */
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

/** The parts asked for, or, for `auto`, two if the model is small and its threads can be shared; each has a thread at least. Undefined for one. */
export async function splitOf(
  choice: number | "auto",
  model: Model,
  threads: number,
): Promise<Split | undefined> {
  const all = threads || (await cores());
  const pays = async () => all >= AUTO_PARTS && (await weightBytes(model)) <= AUTO_MOST_BYTES;
  const parts = choice === "auto" ? ((await pays()) ? AUTO_PARTS : 1) : choice;
  return parts === 1 ? undefined : { parts, threads: Math.max(1, Math.floor(all / parts)) };
}
