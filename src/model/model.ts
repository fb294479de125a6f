/** A model on disk, checked and ready to be loaded by a worker. */

import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import type { Schedule } from "../diffusion/schedule.ts";
import { StartupError } from "../errors.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import {
  type Manifest,
  type ModelFile,
  type Precision,
  readManifest,
  verifyFile,
  weightFiles,
} from "./manifest.ts";
import { checkExternalData } from "./onnx.ts";
import { choosePrecision, dotProducts, type PrecisionChoice, type Processor } from "./precision.ts";
import { readTokenizer, type Tokenizer } from "./tokenizer.ts";

/** A verified model: its manifest, its tokenizer and where its graphs lie. */
export interface Model {
  folder: string;
  manifest: Manifest;
  tokenizer: Tokenizer;
  schedule: Schedule;
  /** What the graphs are run in, and why. */
  precision: Record<Processor, Precision>;
  precisionReason: Record<Processor, string>;
  /** What identifies the model on each kind of processor (identityOf). */
  sha256: Record<Processor, string>;
  /** Paths of the graphs for each kind of processor; often the same. */
  graphs: Record<Processor, GraphPaths>;
}

/** Paths of a model's graphs; `tilt` and `score` are there if it can be guided. */
export interface GraphPaths {
  denoise: string;
  tilt?: string;
  score?: string;
}

/** The files that are loaded to run a model in a precision, by what they are. */
function filesOf(manifest: Manifest, precision: Precision): Map<string, ModelFile> {
  const files = new Map([["tokenizer", manifest.tokenizer]]);
  for (const [name, graph] of Object.entries(manifest.graphs)) files.set(name, graph[precision]!);
  for (const name of ["weights", "discriminator_weights"] as const)
    if (manifest[name]) files.set(name, manifest[name]);
  return files;
}

/**
 * The fields of a manifest that tokens depend on, beside the files; those of a guided request's defaults
 * among them.
 */
const MEANING = [
  "vocab_size",
  "mask_token_id",
  "end_of_text_token_id",
  "context_length",
  "schedule",
  "conditioning",
  "mask_logit",
  "guidance",
] as const satisfies readonly (keyof Manifest)[];

/** A value as JSON in which the order of an object's fields does not matter. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/**
 * What identifies a model in a precision: the hash of the hashes that its manifest gives of the files that
 * are loaded, and of the fields of the manifest that tokens depend on.
 */
export function identityOf(manifest: Manifest, precision: Precision): string {
  const files = filesOf(manifest, precision);
  const lines = Array.from(files, ([name, { sha256 }]) => `${name} ${sha256}\n`).sort();
  const { mask_logit = "removed" } = manifest;
  const meaning = Object.fromEntries(MEANING.map((name) => [name, manifest[name]]));
  lines.push(`${canonical({ ...meaning, mask_logit })}\n`);
  return createHash("sha256").update(lines.join("")).digest("hex");
}

function paths(folder: string, files: ReadonlyMap<string, ModelFile>): GraphPaths {
  const path = (name: string) => join(folder, files.get(name)!.file);
  const guided = files.has("tilt") ? { tilt: path("tilt"), score: path("score") } : {};
  return { denoise: path("denoise"), ...guided };
}

/** Where models lie that are known by name. */
export const MODELS = join(PACKAGE_ROOT, "models");

/** The folder `--model` means: a path if it looks like one, else a name under `models/`. */
export function modelFolder(nameOrFolder: string): string {
  const isPath = isAbsolute(nameOrFolder) || /^\.{1,2}$|[/\\]/.test(nameOrFolder);
  return isPath ? resolve(nameOrFolder) : join(MODELS, nameOrFolder);
}

/** That folder. Throws StartupError if there is none. */
export async function existingFolder(nameOrFolder: string): Promise<string> {
  const folder = modelFolder(nameOrFolder);
  const isFolder = async (path: string) => (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  if (await isFolder(folder)) return folder;
  if (folder !== resolve(nameOrFolder) && (await isFolder(resolve(nameOrFolder))))
    throw new StartupError(
      `there is no model ${nameOrFolder} under ${MODELS}: for the folder in the current directory, ` +
        `give a path: ./${nameOrFolder}`,
    );
  throw new StartupError(
    `model folder ${folder} does not exist: give a name that \`didi-serve model list\` shows, or a path to a folder`,
  );
}

/**
 * Opens a model by name or folder, verifying every file it may load. Throws StartupError naming what is
 * wrong.
 */
export async function openModel(nameOrFolder: string, choice: PrecisionChoice = "auto"): Promise<Model> {
  const folder = await existingFolder(nameOrFolder);
  const manifest = await readManifest(folder);
  const chosen = choosePrecision(folder, manifest.graphs.denoise, choice, dotProducts());
  const precision = { cpu: chosen.cpu.precision, cuda: chosen.cuda.precision };
  const loaded = { cpu: filesOf(manifest, precision.cpu), cuda: filesOf(manifest, precision.cuda) };
  const needed = new Set([...loaded.cpu.values(), ...loaded.cuda.values()]);
  await Promise.all(Array.from(needed, (entry) => verifyFile(folder, entry)));
  for (const used of new Set(Object.values(precision)))
    for (const graph of Object.values(manifest.graphs))
      await checkExternalData(folder, graph[used]!, weightFiles(manifest));
  const tokenizer = await readTokenizer(join(folder, manifest.tokenizer.file), manifest.vocab_size, {
    maskId: manifest.mask_token_id,
    endOfTextId: manifest.end_of_text_token_id,
  });
  return {
    folder,
    manifest,
    tokenizer,
    schedule: { alphaMin: manifest.schedule.alpha_min, tMin: manifest.schedule.t_min },
    precision,
    precisionReason: { cpu: chosen.cpu.reason, cuda: chosen.cuda.reason },
    sha256: { cpu: identityOf(manifest, precision.cpu), cuda: identityOf(manifest, precision.cuda) },
    graphs: { cpu: paths(folder, loaded.cpu), cuda: paths(folder, loaded.cuda) },
  };
}
