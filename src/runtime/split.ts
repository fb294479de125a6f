/** Whether calls are divided. */

import { readdir, readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { weightFiles } from "../model/manifest.ts";
import type { Model } from "../model/model.ts";
import type { Split } from "./protocol.ts";

/** Parts that `auto` divides calls into. */
const AUTO_PARTS = 2;
/** Bytes of a model's files up to which `auto` has every part hold its weights. */
const AUTO_MOST_BYTES = 128 << 20;

/** Bytes of the files that sessions on the CPU are made of. */
function bytesOf({ manifest, precision }: Model): number {
  const files = [
    ...Object.values(manifest.graphs).map((graph) => graph[precision.cpu]!),
    ...weightFiles(manifest),
  ];
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
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
  const pays = all >= AUTO_PARTS && bytesOf(model) <= AUTO_MOST_BYTES;
  const parts = choice === "auto" ? (pays ? AUTO_PARTS : 1) : choice;
  return parts === 1 ? undefined : { parts, threads: Math.max(1, Math.floor(all / parts)) };
}
