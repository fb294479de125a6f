/** `model.json`: what a model folder holds (schema: models/model.schema.json). */

import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { readFile, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { StartupError } from "../errors.ts";
import { createAjv } from "../json-schema.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import { foreignModel } from "./foreign.ts";

/** A file of a model folder. */
export interface ModelFile {
  file: string;
  /** Lower-case hex. */
  sha256: string;
  bytes: number;
}

/** What numbers a graph's matrices are held in. */
export const PRECISIONS = ["fp32", "fp16", "int8"] as const;
export type Precision = (typeof PRECISIONS)[number];

/** One file in each precision the folder has; at least one. */
export type GraphFiles = Partial<Record<Precision, ModelFile>>;

/** Defaults of guided sampling. */
export interface Guidance {
  candidates: number;
  scale_start: number;
  scale_end: number;
  rerank_ratio: number;
  /** Of guided draws; absent: 1. */
  temperature?: number;
}

/** One row of a model's measured quality. */
export interface Quality {
  /** `rgas` with the model's own guidance. */
  sampler: "plain" | "rgas";
  steps: number;
  generative_perplexity: number;
  /** Nats. */
  entropy: number;
}

/** How int8 graphs got their scales. */
export interface Calibration {
  percentile: number;
  windows: number;
  /** Of a window. */
  tokens: number;
  /** Nats a token in float32, on these windows; then the change with int8, paired. */
  nelbo: number;
  nelbo_change: number;
  standard_error: number;
}

/** The parsed manifest; field meanings are in the schema. */
export interface Manifest {
  format_version: 1;
  name: string;
  description: string;
  licence: string;
  parameters: number;
  vocab_size: number;
  mask_token_id: number;
  end_of_text_token_id: number;
  context_length: number;
  schedule: { kind: "log-linear"; alpha_min: number; t_min: number };
  conditioning: "none" | "sigma";
  /** Absent means removed. */
  mask_logit?: "removed" | "kept";
  tokenizer: ModelFile;
  graphs: { denoise: GraphFiles; tilt?: GraphFiles; score?: GraphFiles };
  /** What the graphs make their matrices of. */
  weights?: ModelFile;
  discriminator_weights?: ModelFile;
  /** There if int8 graphs are. */
  calibration?: Calibration;
  guidance?: Guidance;
  quality?: Quality[];
}

const schema = JSON.parse(readFileSync(join(PACKAGE_ROOT, "models", "model.schema.json"), "utf8"));
const validate = createAjv({ allErrors: true }).compile<Manifest>(schema);

/** Reads and checks `model.json` of a folder. Throws StartupError naming what is wrong. */
export async function readManifest(folder: string): Promise<Manifest> {
  const path = join(folder, "model.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const foreign = code === "ENOENT" ? await foreignModel(folder) : undefined;
    throw new StartupError(
      foreign ? `${folder} has no model.json: ${foreign}` : `cannot read ${path}: ${code}`,
    );
  }
  let manifest: unknown;
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    throw new StartupError(`${path} is not JSON: ${(error as Error).message}`);
  }
  if (!validate(manifest)) {
    const faults = validate.errors!.map((e) => {
      if (e.keyword === "pattern" && e.instancePath.endsWith("/file"))
        return `${e.instancePath} must be the name of a file in the folder, not a path`;
      const extra = "additionalProperty" in e.params ? ` (${e.params.additionalProperty})` : "";
      return `${e.instancePath || "/"} ${e.message}${extra}`;
    });
    throw new StartupError(`${path} is not a valid manifest: ${faults.join("; ")}`);
  }
  if (manifest.mask_token_id !== manifest.vocab_size - 1)
    throw new StartupError(`${path}: mask_token_id must be the last id, ${manifest.vocab_size - 1}`);
  const { denoise, ...guided } = manifest.graphs;
  for (const [name, files] of Object.entries(guided))
    if (precisionsOf(files).join() !== precisionsOf(denoise).join())
      throw new StartupError(
        `${path}: graph ${name} comes in ${precisionsOf(files).join(", ")} and denoise in ${precisionsOf(denoise).join(", ")}`,
      );
  if ((manifest.guidance === undefined) !== (manifest.graphs.tilt === undefined))
    throw new StartupError(`${path}: guidance must be there if and only if the graphs tilt and score are`);
  return manifest;
}

/** The files of weights that graphs read. */
export function weightFiles({ weights, discriminator_weights }: Manifest): ModelFile[] {
  return [weights, discriminator_weights].filter((file) => file !== undefined);
}

/** The precisions a graph comes in, widest first. */
export function precisionsOf(files: GraphFiles): Precision[] {
  return PRECISIONS.filter((precision) => files[precision] !== undefined);
}

/**
 * Checks that a file lies in the folder, and its size and sha256 against the manifest. Throws StartupError if
 * not.
 */
export async function verifyFile(folder: string, entry: ModelFile): Promise<void> {
  const path = join(folder, entry.file);
  const info = await stat(path).catch(() => undefined);
  if (!info?.isFile()) throw new StartupError(`${path} is missing`);
  const [real, home] = await Promise.all([realpath(path), realpath(folder)]);
  if (!real.startsWith(home + sep))
    throw new StartupError(`${path} is a link to ${real}, outside of the folder: copy the file into it`);
  if (info.size !== entry.bytes)
    throw new StartupError(`${path} is damaged: ${info.size} bytes, and model.json says ${entry.bytes}`);
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  const actual = hash.digest("hex");
  if (actual !== entry.sha256)
    throw new StartupError(
      `${path} is damaged: its sha256 is ${actual}, and model.json says ${entry.sha256}`,
    );
}
