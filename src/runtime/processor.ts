/** Describe what the bits of an answer depend on besides the model: the kernels that ONNX Runtime chooses. */

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import type { Provider } from "./protocol.ts";

/** Instruction sets by which ONNX Runtime chooses its kernels. */
const KERNEL_FLAG = /^(avx|fma|f16c|amx|sse4|asimd|sve|i8mm|bf16|fphp|lasx|lsx)/;

const GPUS = "/proc/driver/nvidia/gpus";

/** Return the flags in the text of `/proc/cpuinfo` that select kernels; undefined if it lists no flags. */
export function kernelFlags(cpuinfo: string): string | undefined {
  const line = /^(?:flags|features)\s*:(.*)$/im.exec(cpuinfo)?.[1];
  const flags = line?.split(" ").filter((flag) => KERNEL_FLAG.test(flag));
  return flags && [...new Set(flags)].sort().join(" ");
}

function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

const gpuModels = () =>
  readdirSync(GPUS).map((gpu) =>
    /^Model:\s*(.*)$/m.exec(readFileSync(`${GPUS}/${gpu}/information`, "utf8"))?.[1]?.trim(),
  );

/** Return a line that is equal on two machines only if their answers have the same bits. */
export function processorOf(provider: Provider): string {
  const require = createRequire(import.meta.url);
  const { version } = JSON.parse(readFileSync(require.resolve("onnxruntime-node/package.json"), "utf8"));
  const flags = readable(() => kernelFlags(readFileSync("/proc/cpuinfo", "utf8"))) ?? cpus()[0]?.model;
  const gpus = provider === "cuda" ? readable(gpuModels) : undefined;
  return [`onnxruntime ${version}`, process.arch, flags, ...(gpus ?? [])].join("; ");
}
