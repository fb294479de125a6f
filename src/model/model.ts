/** A model on disk, checked and ready to be loaded by a runtime process. */

import { stat } from "node:fs/promises";
import { isAbsolute, join, resolve } from "node:path";
import type { Schedule } from "../diffusion/schedule.ts";
import { StartupError } from "../errors.ts";
import { PACKAGE_ROOT } from "../package-root.ts";
import { type Manifest, readManifest, verifyFile } from "./manifest.ts";
import { readTokenizer, type Tokenizer } from "./tokenizer.ts";

/** A verified model: its manifest, its tokenizer and where its graphs lie. */
export interface Model {
  folder: string;
  manifest: Manifest;
  tokenizer: Tokenizer;
  schedule: Schedule;
  graphs: {
    /** Path of the fp32 `denoise` graph. */
    denoise: string;
  };
}

/** The folder `--model` means: a path if it looks like one, else a name under `models/`. */
export function modelFolder(nameOrFolder: string): string {
  const isPath = isAbsolute(nameOrFolder) || /^\.{1,2}$|[/\\]/.test(nameOrFolder);
  return isPath ? resolve(nameOrFolder) : join(PACKAGE_ROOT, "models", nameOrFolder);
}

/** Opens a model by name or folder, verifying every file. Throws StartupError naming what is wrong. */
export async function openModel(nameOrFolder: string): Promise<Model> {
  const folder = modelFolder(nameOrFolder);
  if (!(await stat(folder).catch(() => undefined))?.isDirectory())
    throw new StartupError(
      `model folder ${folder} does not exist: give --model a shipped name or a path to a folder`,
    );
  const manifest = await readManifest(folder);
  const denoise = manifest.graphs.denoise.fp32;
  await Promise.all([verifyFile(folder, denoise), verifyFile(folder, manifest.tokenizer)]);
  const tokenizer = await readTokenizer(join(folder, manifest.tokenizer.file), manifest.vocab_size, {
    maskId: manifest.mask_token_id,
    endOfTextId: manifest.end_of_text_token_id,
  });
  return {
    folder,
    manifest,
    tokenizer,
    schedule: { alphaMin: manifest.schedule.alpha_min, tMin: manifest.schedule.t_min },
    graphs: { denoise: join(folder, denoise.file) },
  };
}
