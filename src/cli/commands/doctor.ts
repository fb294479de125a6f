/**
 * `didi-serve doctor`: report the machine's abilities, and the device and precision that a model would run
 * on.
 */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { StartupError } from "../../errors.ts";
import { type CudaState, listGpus, lookForCuda } from "../../runtime/cuda.ts";
import { VERSION } from "../../server/openapi.ts";
import type { ModelConfig } from "../options.ts";
import { ONE_AT_A_TIME, startEngine, warmUp } from "../start-engine.ts";

/** Settings of the command. */
export interface DoctorConfig extends ModelConfig {
  json: boolean;
}

/** Instruction sets that ONNX Runtime's CPU kernels use, by their names in /proc/cpuinfo. */
const FEATURES = ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimd"];
const MEGABYTE = 1 << 20;

interface Report {
  versions: { didi_serve: string; node: string; onnxruntime_node: string };
  processor: { name: string; cores: number; features: string[] };
  memory_mb: { total: number; free: number };
  /** One line of nvidia-smi for each: name, driver version, memory. */
  gpus: string[];
  cuda: CudaState;
  /** Device and precision of the model; absent if it does not run. */
  runs?: { model: string; device: string; precision: string; reason: string };
  /** Why the model does not run. */
  fault?: string;
}

/** Return the processor's FEATURES; none on systems without /proc. */
function features(): string[] {
  try {
    const line = readFileSync("/proc/cpuinfo", "utf8").match(/^(?:flags|Features)\s*:(.*)$/m)?.[1] ?? "";
    const has = new Set(line.trim().split(/\s+/));
    return FEATURES.filter((feature) => has.has(feature));
  } catch {
    return [];
  }
}

/** Load the model and run each graph once. Throws StartupError if it does not run. */
async function tryModel(config: DoctorConfig): Promise<Report["runs"]> {
  const engine = await startEngine(config, ONE_AT_A_TIME);
  try {
    await warmUp(engine);
    const { model, pool } = engine;
    const asked = `--device ${config.device} --precision ${config.precision}`;
    const device = pool.fallback ?? (pool.provider === "cuda" ? "CUDA loads" : "as asked");
    const because = `${device}; ${model.precisionReason[pool.provider]}`;
    return {
      model: model.manifest.name,
      device: pool.provider,
      precision: model.precision[pool.provider],
      reason: `${asked}: ${because}`,
    };
  } finally {
    await engine.pool.close();
  }
}

function lines({ versions, processor, memory_mb, gpus, cuda, runs, fault }: Report): string[] {
  const found = cuda.provider
    ? `provider for CUDA ${cuda.needed ?? "?"}, missing: ${cuda.missing.join(", ") || "nothing"}`
    : "provider not installed";
  return [
    `didi-serve ${versions.didi_serve}, Node ${versions.node}, onnxruntime-node ${versions.onnxruntime_node}`,
    [
      `processor: ${processor.name}, ${processor.cores} cores`,
      processor.features.join(" ") || "features unknown",
    ].join(", "),
    `memory: ${memory_mb.total} MB, ${memory_mb.free} MB free`,
    `GPUs: ${gpus.join("; ") || "none (nvidia-smi lists none, or is missing)"}`,
    `CUDA: ${found}${cuda.driver ? `, driver ${cuda.driver}` : ""}`,
    runs
      ? `${runs.model} runs on ${runs.device} in ${runs.precision} (${runs.reason})`
      : `the model does not run: ${fault}`,
  ];
}

/** Print the report. Return the exit code: 0 if the model runs, else 1. */
export async function doctor(config: DoctorConfig): Promise<0 | 1> {
  const require = createRequire(import.meta.url);
  const report: Report = {
    versions: {
      didi_serve: VERSION,
      node: process.versions.node,
      onnxruntime_node: require("onnxruntime-node/package.json").version,
    },
    processor: { name: cpus()[0]?.model ?? "unknown", cores: availableParallelism(), features: features() },
    memory_mb: { total: Math.round(totalmem() / MEGABYTE), free: Math.round(freemem() / MEGABYTE) },
    gpus: listGpus(),
    cuda: lookForCuda(),
  };
  try {
    const runs = await tryModel(config);
    if (runs) report.runs = runs;
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    report.fault = error.message;
  }
  console.log(config.json ? JSON.stringify(report, null, 2) : lines(report).join("\n"));
  return report.runs ? 0 : 1;
}
