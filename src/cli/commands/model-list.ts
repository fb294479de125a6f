/** `didi-serve model list`: list the models under models/. */

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { StartupError } from "../../errors.ts";
import { type Precision, precisionsOf, readManifest } from "../../model/manifest.ts";
import { MODELS, modelParents } from "../../model/model.ts";
import { columns, printable } from "../output/terminal.ts";

/** A model folder, with the reason if its manifest cannot be used. */
export type ListedModel = { name: string; folder: string; bytes: number } & (
  | { parameters: number; context_length: number; precisions: Precision[]; guidance: boolean }
  | { fault: string }
);

/** Return the size of a folder in bytes, subfolders included. */
async function bytesOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const sizes = await Promise.all(
    files.map(async ({ parentPath, path, name }) => (await stat(join(parentPath ?? path, name))).size),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function describe(parent: string, name: string): Promise<ListedModel> {
  const folder = join(parent, name);
  const head = { name, folder, bytes: await bytesOf(folder) };
  try {
    const { parameters, context_length, graphs, guidance } = await readManifest(folder);
    const precisions = precisionsOf(graphs.denoise);
    return { ...head, parameters, context_length, precisions, guidance: guidance !== undefined };
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    return { ...head, fault: error.message };
  }
}

/**
 * Return the folders of `parent` that hold a model.json, by name. Throws StartupError if `parent` is missing.
 */
export async function listModels(parent: string = MODELS): Promise<ListedModel[]> {
  const names = await readdir(parent).catch((error: NodeJS.ErrnoException) => {
    throw new StartupError(`cannot read ${parent}: ${error.code}`);
  });
  const isModel = async (name: string) =>
    (await stat(join(parent, name, "model.json")).catch(() => undefined))?.isFile() ?? false;
  const found = await Promise.all(names.map(isModel));
  return Promise.all(
    names
      .filter((_, i) => found[i])
      .toSorted()
      .map((name) => describe(parent, name)),
  );
}

const millions = (count: number) => `${(count / 1e6).toFixed(count < 1e8 ? 1 : 0)} M`;
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`;

/** Return the models as a table, and below it the reason for each that cannot be used. */
export function tableOf(models: readonly ListedModel[]): string {
  const rows = models.map((model) =>
    "fault" in model
      ? [printable(model.name), "-", "-", "-", "-", megabytes(model.bytes)]
      : [
          model.name,
          millions(model.parameters),
          `${model.context_length} tokens`,
          model.precisions.join(", "),
          model.guidance ? "yes" : "no",
          megabytes(model.bytes),
        ],
  );
  const table = [["name", "parameters", "context", "precisions", "guidance", "on disk"], ...rows];
  const faults = models.flatMap((model) =>
    "fault" in model ? [`cannot be used: ${printable(model.fault)}`] : [],
  );
  return `${[...columns(table), ...faults].join("\n")}\n`;
}

/** Print the models that are known by name. Throws StartupError if a folder of models is missing. */
export async function printModels(json: boolean): Promise<void> {
  const lists = await Promise.all(modelParents().map((parent) => listModels(parent)));
  // A model of the user hides the package's one of the same name, as it does for --model.
  const byName = new Map(lists.toReversed().flatMap((models) => models.map((model) => [model.name, model])));
  const models = [...byName.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  console.log(json ? JSON.stringify(models, null, 2) : tableOf(models).trimEnd());
}
