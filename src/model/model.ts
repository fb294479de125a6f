/** Open a model folder: check its files and choose its precision. */

import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import type { Schedule } from "../diffusion/schedule.ts";
import { StartupError } from "../errors.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import { ChatTemplate } from "./chat.ts";
import {
  DISCRIMINATOR,
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

/** What a manifest says of a model. Records have an entry for each kind of processor. */
export interface ModelDescription {
  folder: string;
  manifest: Manifest;
  schedule: Schedule;
  /** Number format of the graphs, and why it was chosen. */
  precision: Record<Processor, Precision>;
  precisionReason: Record<Processor, string>;
  /** Identity of the model (`identityOf`). */
  sha256: Record<Processor, string>;
  /** Paths of the graphs. */
  graphs: Record<Processor, GraphPaths>;
}

/** A verified model. */
export interface Model extends ModelDescription {
  tokenizer: Tokenizer;
  /** Absent if the model only continues text. */
  chat?: ChatTemplate;
}

/** The graph of a reward other than the discriminator, which is `score`. */
export type RewardGraph = `reward ${string}`;

/** Return the graph that computes a reward. */
export const graphOf = (reward: string): "score" | RewardGraph =>
  reward === DISCRIMINATOR ? "score" : `reward ${reward}`;

/** Paths of a model's graphs; `tilt` and `score` are present if it has a discriminator. */
export interface GraphPaths {
  denoise: string;
  tilt?: string;
  score?: string;
  [reward: RewardGraph]: string;
}

/** Return the files that are loaded to run a model in a precision, by their role. */
function filesOf(manifest: Manifest, precision: Precision): Map<string, ModelFile> {
  const files = new Map([["tokenizer", manifest.tokenizer]]);
  for (const [name, graph] of Object.entries(manifest.graphs)) files.set(name, graph[precision]!);
  for (const name of ["weights", "discriminator_weights"] as const)
    if (manifest[name]) files.set(name, manifest[name]);
  for (const data of Object.values(manifest.graphs).flatMap((graph) => graph[precision]?.data ?? []))
    files.set(`data ${data.file}`, data);
  for (const reward of manifest.rewards ?? []) {
    files.set(graphOf(reward.name), reward);
    if (reward.weights) files.set(`weights of ${reward.name}`, reward.weights);
  }
  return files;
}

/** The fields of a manifest that tokens depend on, defaults of guided requests included. */
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

/** Return a value as JSON with the fields of objects sorted. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

/**
 * Return the identity of a model in a precision: a hex sha256 over the sha256 of each loaded file and over
 * the fields of the manifest that tokens depend on.
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
  const graphs = Array.from(files.keys()).filter((name) => /^(tilt|score|reward .*)$/.test(name));
  return { denoise: path("denoise"), ...Object.fromEntries(graphs.map((name) => [name, path(name)])) };
}

/** The models of this package. */
export const MODELS = join(PACKAGE_ROOT, "models");

/** Return the folders of models that are known by name: the user's (DIDI_MODELS_DIR), then the package's. */
export const modelParents = (own = process.env.DIDI_MODELS_DIR): string[] =>
  own ? [resolve(own), MODELS] : [MODELS];

/**
 * Return the folder that `--model` means: a path if it looks like one, else the first folder of that name in
 * `modelParents()`, or where it would be under the package's models if there is none.
 */
export function modelFolder(nameOrFolder: string): string {
  const isPath = isAbsolute(nameOrFolder) || /^\.{1,2}$|[/\\]/.test(nameOrFolder);
  if (isPath) return resolve(nameOrFolder);
  const folders = modelParents().map((parent) => join(parent, nameOrFolder));
  return folders.find((folder) => existsSync(folder)) ?? join(MODELS, nameOrFolder);
}

/** Return that folder. Throws StartupError if it does not exist. */
export async function existingFolder(nameOrFolder: string): Promise<string> {
  const folder = modelFolder(nameOrFolder);
  const isFolder = async (path: string) => (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  if (await isFolder(folder)) return folder;
  if (folder !== resolve(nameOrFolder) && (await isFolder(resolve(nameOrFolder))))
    throw new StartupError(
      `there is no model ${nameOrFolder} under ${modelParents().join(" or ")}: ` +
        "for the folder in the current directory, " +
        `give a path: ./${nameOrFolder}`,
    );
  throw new StartupError(
    `model folder ${folder} does not exist: ` +
      "give a name that `didi-serve model list` shows, or a path to a folder",
  );
}

/**
 * Describe a model by name or folder; reads its manifest only. Throws StartupError if it cannot be used in
 * that precision.
 */
export async function describeModel(
  nameOrFolder: string,
  choice: PrecisionChoice = "auto",
): Promise<ModelDescription> {
  const folder = await existingFolder(nameOrFolder);
  const manifest = await readManifest(folder);
  const { cpu, cuda } = choosePrecision(folder, manifest.graphs.denoise, choice, dotProducts());
  const graphs = (precision: Precision) => paths(folder, filesOf(manifest, precision));
  return {
    folder,
    manifest,
    schedule: { alphaMin: manifest.schedule.alpha_min, tMin: manifest.schedule.t_min },
    precision: { cpu: cpu.precision, cuda: cuda.precision },
    precisionReason: { cpu: cpu.reason, cuda: cuda.reason },
    sha256: { cpu: identityOf(manifest, cpu.precision), cuda: identityOf(manifest, cuda.precision) },
    graphs: { cpu: graphs(cpu.precision), cuda: graphs(cuda.precision) },
  };
}

/**
 * Open a model by name or folder and verify every file that it may load. Throws StartupError naming the
 * fault.
 *
 * @example
 * const { manifest, graphs } = await openModel("stories-didi", "int8");
 */
export async function openModel(nameOrFolder: string, choice: PrecisionChoice = "auto"): Promise<Model> {
  const description = await describeModel(nameOrFolder, choice);
  const { folder, manifest } = description;
  const precisions = [...new Set(Object.values(description.precision))];
  const { chat: format } = manifest;
  const loaded = precisions.flatMap((precision) => [...filesOf(manifest, precision).values()]);
  const needed = new Set([...loaded, ...(format ? [format.template] : [])]);
  await Promise.all(Array.from(needed, (entry) => verifyFile(folder, entry)));
  for (const used of precisions)
    for (const graph of Object.values(manifest.graphs))
      await checkExternalData(folder, graph[used]!, weightFiles(manifest, used));
  for (const reward of manifest.rewards ?? []) await checkExternalData(folder, reward, weightFiles(manifest));
  const tokenizer = await readTokenizer(join(folder, manifest.tokenizer.file), manifest.vocab_size, {
    maskId: manifest.mask_token_id,
    endOfTextId: manifest.end_of_text_token_id,
  });
  const chat = format && (await ChatTemplate.open(join(folder, format.template.file), format));
  return { ...description, tokenizer, ...(chat && { chat }) };
}
