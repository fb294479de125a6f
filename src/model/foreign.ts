/** Recognises folders that hold a model of another program, so that errors can tell how to convert it. */

import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";

/** The families that `model convert` reads, with their architectures in config.json. */
const ARCHITECTURES = {
  "didi-instruct": ["DiDiInstruct"],
  mdlm: ["MDLM", "DIT"],
  idlm: [],
  bert: ["BertForMaskedLM", "BertForPreTraining"],
  modernbert: ["ModernBertForMaskedLM"],
  llada: ["LLaDAModelLM"],
  dream: ["DreamModel", "DreamForCausalLM"],
  "qwen3-mdlm": ["A2DQwen3LMHeadModel"],
} as const;

export type Family = keyof typeof ARCHITECTURES;
export const FAMILIES = Object.keys(ARCHITECTURES) as Family[];

/** Each architecture's family. */
const CONVERTIBLE = new Map<string, Family>(
  FAMILIES.flatMap((family) => ARCHITECTURES[family].map((name) => [name, family] as const)),
);

const WHICH = "`didi-serve model convert` reads no checkpoints of it (docs/models.md lists the families)";

/** Return the architecture that config.json names; undefined without the file or the name. */
async function architectureOf(folder: string): Promise<string | undefined> {
  try {
    const { architectures, model_type } = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    const name: unknown = architectures?.[0] ?? model_type;
    return typeof name === "string" && /^[\w.-]{1,64}$/.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * Return what a folder without model.json holds and what to do with it; undefined if it is not recognised.
 */
export async function foreignModel(folder: string): Promise<string | undefined> {
  const architecture = await architectureOf(folder);
  const weights = await hasWeights(folder);
  const guided = await exists(join(folder, "discriminator.safetensors"));
  const known = architecture === undefined ? guided : CONVERTIBLE.has(architecture);
  if (weights && known)
    return (
      `it holds a checkpoint${architecture ? ` (${architecture})` : ""}: convert it with ` +
      `\`didi-serve model convert --from ${folder} --out models/NAME\``
    );
  if (architecture !== undefined) return `config.json says that it is a ${architecture}; ${WHICH}`;
  return weights
    ? "it holds weights and no config.json: convert them with `didi-serve model convert`, whose " +
        `--family is one of ${FAMILIES.join(", ")}`
    : undefined;
}

/** Return whether a folder holds a checkpoint in safetensors, in one file or in several. */
const hasWeights = async (folder: string) =>
  (await exists(join(folder, "model.safetensors"))) ||
  (await exists(join(folder, "model.safetensors.index.json")));

/**
 * Return why a checkpoint cannot be converted, from the files of its folder; undefined if it may be
 * convertible. A `family` that is given need not be the one of config.json.
 */
export async function notConvertible(folder: string, family: Family | "auto"): Promise<string | undefined> {
  if (!(await hasWeights(folder))) return "it has no model.safetensors and no model.safetensors.index.json";
  if (family === "didi-instruct" && !(await exists(join(folder, "discriminator.safetensors"))))
    return "it has no discriminator.safetensors: --family mdlm converts it without guidance";
  const architecture = await architectureOf(folder);
  if (family !== "auto" || architecture === undefined || CONVERTIBLE.has(architecture)) return undefined;
  return `config.json says that it is a ${architecture}; ${WHICH}`;
}
