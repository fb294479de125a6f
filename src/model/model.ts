/** A model on disk, checked and ready to be loaded by a runtime process. */

import { stat } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import type { Schedule } from "../diffusion/schedule.ts";
import { StartupError } from "../errors.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import {
  type GraphFiles,
  type Manifest,
  type Precision,
  precisionsOf,
  readManifest,
  verifyFile,
} from "./manifest.ts";
import { readTokenizer, type Tokenizer } from "./tokenizer.ts";

/** A verified model: its manifest, its tokenizer and where its graphs lie. */
export interface Model {
  folder: string;
  manifest: Manifest;
  tokenizer: Tokenizer;
  schedule: Schedule;
  /** What the graphs are run in: half products pay on a GPU and cost on a CPU. */
  precision: Record<Processor, Precision>;
  /** Paths of the graphs for each kind of processor; often the same. */
  graphs: Record<Processor, GraphPaths>;
}

/** Paths of a model's graphs; `tilt` and `score` are there if it can be guided. */
export interface GraphPaths {
  denoise: string;
  tilt?: string;
  score?: string;
}

/** What a graph may run on, as far as the choice of its precision goes. */
export type Processor = "cpu" | "cuda";

/** The precision to run a model in: one by name, or `auto`. */
export type PrecisionChoice = "auto" | Precision;

/**
 * The precision for each kind of processor. `auto` is fp16 on CUDA if the folder has it, else fp32, else what
 * there is. Throws StartupError if the folder lacks the one asked for.
 */
function choosePrecision(
  folder: string,
  files: GraphFiles,
  choice: PrecisionChoice,
): Record<Processor, Precision> {
  const has = precisionsOf(files);
  if (choice !== "auto") {
    if (!has.includes(choice))
      throw new StartupError(`${folder} has no ${choice} graphs: --precision can be ${has.join(" or ")}`);
    return { cpu: choice, cuda: choice };
  }
  const cpu = has[0]!;
  return { cpu, cuda: has.includes("fp16") ? "fp16" : cpu };
}

/** The folder `--model` means: a path if it looks like one, else a name under `models/`. */
export function modelFolder(nameOrFolder: string): string {
  const isPath = isAbsolute(nameOrFolder) || /^\.{1,2}$|[/\\]/.test(nameOrFolder);
  return isPath ? resolve(nameOrFolder) : join(PACKAGE_ROOT, "models", nameOrFolder);
}

/** Opens a model by name or folder, verifying every file it may load. Throws StartupError naming what is wrong. */
export async function openModel(nameOrFolder: string, choice: PrecisionChoice = "auto"): Promise<Model> {
  const folder = modelFolder(nameOrFolder);
  if (!(await stat(folder).catch(() => undefined))?.isDirectory())
    throw new StartupError(
      `model folder ${folder} does not exist: give --model a shipped name or a path to a folder`,
    );
  const manifest = await readManifest(folder);
  const precision = choosePrecision(folder, manifest.graphs.denoise, choice);
  const needed = new Set([manifest.tokenizer]);
  const paths = (processor: Processor) => {
    const found: Record<string, string> = {};
    for (const [name, files] of Object.entries(manifest.graphs)) {
      const entry = files[precision[processor]]!;
      needed.add(entry);
      found[name] = join(folder, entry.file);
    }
    const data = manifest.data?.[precision[processor]];
    if (data) needed.add(data);
    return found as unknown as GraphPaths;
  };
  const graphs = { cpu: paths("cpu"), cuda: paths("cuda") };
  await Promise.all(Array.from(needed, (entry) => verifyFile(folder, entry)));
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
    graphs,
  };
}
