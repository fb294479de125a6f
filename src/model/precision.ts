/** Which precision a model is run in. */

import { readFileSync } from "node:fs";
import { StartupError } from "../errors.ts";
import { type GraphFiles, type Precision, precisionsOf } from "./manifest.ts";

/** What a graph may run on, as far as the choice of its precision goes. */
export type Processor = "cpu" | "cuda";

/** The precision to run a model in: one by name, or `auto`. */
export type PrecisionChoice = "auto" | Precision;

/** The precision for each kind of processor, and why. */
export type Chosen = Record<Processor, { precision: Precision; reason: string }>;

/** Instructions that add up products of 8-bit integers in 32 bits, as Linux names them. */
const DOT_PRODUCTS = ["avx512_vnni", "avx_vnni", "asimddp"];

/** What to tell where `dotProducts` finds none. */
export const NO_DOT_PRODUCTS = `the processor has none of ${DOT_PRODUCTS.join(", ")}`;

/**
 * The instruction for 8-bit dot products that this processor has; undefined if it has none, or if the system does not
 * say. Without one ONNX Runtime adds up products in 16 bits, which overflow: int8 is then slow and wrong.
 */
export function dotProducts(
  cpuinfo: string | undefined = readCpuinfo(),
  platform: string = process.platform,
  arch: string = process.arch,
): string | undefined {
  // Every ARM processor that macOS runs on has them.
  if (platform === "darwin" && arch === "arm64") return "asimddp";
  // Processors of one machine may differ; a thread may run on any.
  const lines = cpuinfo?.match(/^(flags|Features)\s*:.*$/gm) ?? [];
  const has = lines.map((line) => new Set(line.replace(/^[^:]*:/, "").split(/\s+/)));
  if (has.length === 0) return undefined;
  return DOT_PRODUCTS.find((name) => has.every((flags) => flags.has(name)));
}

function readCpuinfo(): string | undefined {
  try {
    return readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return undefined;
  }
}

/**
 * The precision for each kind of processor. `auto` is int8 on a CPU with 8-bit dot products, fp16 on CUDA, and fp32
 * elsewhere, as far as the folder has them; else what there is. Throws StartupError if the folder lacks the one asked
 * for, or the processor cannot run it.
 */
export function choosePrecision(
  folder: string,
  files: GraphFiles,
  choice: PrecisionChoice,
  dot: string | undefined,
): Chosen {
  const has = precisionsOf(files);
  if (choice !== "auto") {
    if (!has.includes(choice))
      throw new StartupError(`${folder} has no ${choice} graphs: --precision can be ${has.join(" or ")}`);
    if (choice === "int8" && dot === undefined)
      throw new StartupError(`int8 cannot run here: ${NO_DOT_PRODUCTS}; use --precision auto or fp32`);
    const asked = { precision: choice, reason: "it was asked for" };
    return { cpu: asked, cuda: asked };
  }
  const widest = has.find((precision) => precision !== "int8" || dot !== undefined);
  if (widest === undefined) throw new StartupError(`${folder} has int8 graphs alone, and ${NO_DOT_PRODUCTS}`);
  const cpu =
    has.includes("int8") && dot !== undefined
      ? { precision: "int8" as const, reason: `the processor has ${dot}` }
      : {
          precision: widest,
          reason: has.includes("int8") ? NO_DOT_PRODUCTS : "the model has no int8 graphs",
        };
  const cuda = has.includes("fp16")
    ? { precision: "fp16" as const, reason: "CUDA has half products" }
    : { precision: widest, reason: "the model has no fp16 graphs" };
  return { cpu, cuda };
}
