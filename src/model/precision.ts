/** Choose the precision of a model. */

import { readFileSync } from "node:fs";
import { StartupError } from "../errors.ts";
import { type GraphFiles, type Precision, precisionsOf } from "./manifest.ts";

/** The kinds of processors that a precision is chosen for. */
export type Processor = "cpu" | "cuda";

/** Value of `--precision`. */
export type PrecisionChoice = "auto" | Precision;

/** The precision for each kind of processor, and why it was chosen. */
export type Chosen = Record<Processor, { precision: Precision; reason: string }>;

/** Instructions that sum products of 8-bit integers in 32 bits, as Linux names them. */
const DOT_PRODUCTS = ["avx512_vnni", "avx_vnni", "asimddp"];

/** The reason given if `dotProducts` finds none. */
export const NO_DOT_PRODUCTS = `the processor has none of ${DOT_PRODUCTS.join(", ")}`;

/**
 * Return the instruction for 8-bit dot products that this processor has; undefined if it has none or the
 * system does not say. Without one ONNX Runtime sums products in 16 bits, which overflow: int8 is then slow
 * and wrong.
 */
export function dotProducts(
  cpuinfo: string | undefined = readCpuinfo(),
  platform: string = process.platform,
  arch: string = process.arch,
): string | undefined {
  // Every ARM processor that runs macOS has them.
  if (platform === "darwin" && arch === "arm64") return "asimddp";
  // The processors of a machine may differ, and a thread may run on any of them.
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
 * Return the precision for each kind of processor. `auto` is int8 on a CPU with 8-bit dot products, fp16 on
 * CUDA and fp32 otherwise, or the widest one that the folder has. Throws StartupError if the folder lacks the
 * chosen precision or the processor cannot run it.
 *
 * @param dot the result of `dotProducts`
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
  if (widest === undefined) throw new StartupError(`${folder} has only int8 graphs, and ${NO_DOT_PRODUCTS}`);
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
