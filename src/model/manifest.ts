/** Read `model.json`, the manifest of a model folder (schema: models/model.schema.json). */

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

/** Number formats of a graph's matrices, widest first. */
export const PRECISIONS = ["fp32", "fp16", "int8"] as const;
export type Precision = (typeof PRECISIONS)[number];

/** A graph, and the files beside `weights` that it reads its tensors from. */
export interface GraphFile extends ModelFile {
  data?: ModelFile[];
}

/** The file of a graph in each precision that the folder has; at least one. */
export type GraphFiles = Partial<Record<Precision, GraphFile>>;

/** Defaults of guided sampling. */
export interface Guidance {
  candidates: number;
  scale_start: number;
  scale_end: number;
  rerank_ratio: number;
  /** Temperature of guided draws. Default: that of `Defaults`. */
  temperature?: number;
}

/** What requests take that do not say otherwise. */
export interface Defaults {
  order: "random" | "spread";
  temperature: number;
  /** 0: all. */
  top_k: number;
  /** 1: all. */
  top_p: number;
}

/** A reward beside the discriminator: a graph from canvases to numbers. */
export interface Reward extends ModelFile {
  name: string;
  /** What a higher value says of a text, in one line. */
  meaning: string;
  weights?: ModelFile;
}

/** One measurement of a model's quality. */
export interface Quality {
  /** `rgas` uses the model's default guidance. */
  sampler: "plain" | "rgas";
  steps: number;
  generative_perplexity: number;
  /** Nats. */
  entropy: number;
}

/** How conversations become text, and the text ids. */
export interface ChatFormat {
  /** Jinja, as in Hugging Face's `chat_template`. */
  template: ModelFile;
  /** Ids of the texts in the template that are single tokens. */
  special_tokens: Record<string, number>;
  bos_token?: string;
  eos_token?: string;
}

/** How the scales of int8 graphs were measured. */
export interface Calibration {
  percentile: number;
  windows: number;
  /** Tokens of a window. */
  tokens: number;
  /** Tensors, as FILE/TENSOR, whose products stay in float32. Absent in folders of 0.2.0. */
  float32?: string[];
  /** KL divergence of a masked token's distribution, float32 against int8, in nats. */
  divergence?: number;
  /** NELBO in float32 on these windows, nats a token; and its paired change with int8. */
  nelbo: number;
  nelbo_change: number;
  standard_error: number;
}

/** The parsed manifest. The schema documents its fields. */
export interface Manifest {
  format_version: 1;
  name: string;
  description: string;
  licence: string;
  /** What the network is; absent for the networks of training/. */
  family?: string;
  /** What a token is one letter of; absent for models of text. */
  alphabet?: string;
  parameters: number;
  vocab_size: number;
  mask_token_id: number;
  end_of_text_token_id: number;
  context_length: number;
  schedule: { kind: "log-linear"; alpha_min: number; t_min: number };
  conditioning: "none" | "sigma";
  /** Default: removed. */
  mask_logit?: "removed" | "kept";
  tokenizer: ModelFile;
  graphs: { denoise: GraphFiles; tilt?: GraphFiles; score?: GraphFiles };
  /** The weights that the graphs read. */
  weights?: ModelFile;
  discriminator_weights?: ModelFile;
  /** Present if there are int8 graphs. */
  calibration?: Calibration;
  /** Present if the model answers conversations. */
  chat?: ChatFormat;
  guidance?: Guidance;
  /** `quality` was measured with them. */
  defaults?: Partial<Defaults>;
  /** In order, each name once. */
  rewards?: Reward[];
  quality?: Quality[];
}

/** Return what requests take that do not say otherwise. */
export function defaultsOf({ defaults }: Pick<Manifest, "defaults">): Defaults {
  return { order: "random", temperature: 1, top_k: 0, top_p: 1, ...defaults };
}

/** Name of the reward that the graph `score` computes. */
export const DISCRIMINATOR = "discriminator";

/** Return the names and meanings of everything that scores a model's canvases. */
export function rewardsOf({ graphs, rewards = [] }: Manifest): Pick<Reward, "name" | "meaning">[] {
  const meaning = "Log-odds that a text is the teacher's rather than the student's, summed over its tokens";
  return [
    ...(graphs.score ? [{ name: DISCRIMINATOR, meaning }] : []),
    ...rewards.map(({ name, meaning }) => ({ name, meaning })),
  ];
}

const schema = JSON.parse(readFileSync(join(PACKAGE_ROOT, "models", "model.schema.json"), "utf8"));
const validate = createAjv({ allErrors: true }).compile<Manifest>(schema);

/** Read and check `model.json` of a folder. Throws StartupError naming the fault. */
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
        `${path}: graph ${name} has the precisions ${precisionsOf(files).join(", ")}, ` +
          `and denoise has ${precisionsOf(denoise).join(", ")}: they must be the same`,
      );
  for (const [token, id] of Object.entries(manifest.chat?.special_tokens ?? {}))
    if (id >= manifest.mask_token_id)
      throw new StartupError(`${path}: /chat/special_tokens: the id of ${token} must be below the mask's`);
  if ((manifest.guidance === undefined) !== (manifest.graphs.tilt === undefined))
    throw new StartupError(`${path}: guidance must be present if and only if the graphs tilt and score are`);
  const names = (manifest.rewards ?? []).map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice) throw new StartupError(`${path}: /rewards names ${twice} twice`);
  return manifest;
}

/** Return the files of weights that graphs read, or only those that a precision reads. */
export function weightFiles(manifest: Manifest, precision?: Precision): ModelFile[] {
  const { weights, discriminator_weights, graphs, rewards = [] } = manifest;
  const data = Object.values(graphs).flatMap((files) =>
    (precision ? [precision] : precisionsOf(files)).flatMap((used) => files[used]?.data ?? []),
  );
  const ofRewards = rewards.map((reward) => reward.weights);
  const files = [weights, discriminator_weights, ...data, ...ofRewards].filter((file) => file !== undefined);
  return [...new Map(files.map((file) => [file.file, file])).values()];
}

/** Return the precisions of a graph, widest first. */
export function precisionsOf(files: GraphFiles): Precision[] {
  return PRECISIONS.filter((precision) => files[precision] !== undefined);
}

/**
 * Check that a file is inside the folder and has the size and sha256 of the manifest. Throws StartupError if
 * not.
 */
export async function verifyFile(folder: string, entry: ModelFile): Promise<void> {
  const path = join(folder, entry.file);
  const info = await stat(path).catch(() => undefined);
  if (!info?.isFile()) throw new StartupError(`${path} is missing`);
  const [real, home] = await Promise.all([realpath(path), realpath(folder)]);
  if (!real.startsWith(home + sep))
    throw new StartupError(`${path} is a link to ${real}, outside the folder: copy the file into the folder`);
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
