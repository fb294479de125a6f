/** Recognises folders that hold a model of another program, so that errors can tell how to convert it. */

import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";

/** Architectures in config.json that `model convert` reads, with the kind to convert them as. */
const CONVERTIBLE: Record<string, "didi-instruct" | "mdlm"> = {
  MDLM: "mdlm",
  DIT: "mdlm",
  DiDiInstruct: "didi-instruct",
};

const WHICH =
  "`didi-serve model convert` reads checkpoints of DiDi-Instruct and MDLM only (docs/bring-a-model.md)";

/** Return the architecture that config.json names; undefined without the file or the name. */
export async function architectureOf(folder: string): Promise<string | undefined> {
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
  const weights = await exists(join(folder, "model.safetensors"));
  const guided = await exists(join(folder, "discriminator.safetensors"));
  const kind = (architecture && CONVERTIBLE[architecture]) ?? (guided ? "didi-instruct" : undefined);
  if (weights && kind !== undefined)
    return (
      `it holds a checkpoint${architecture ? ` (${architecture})` : ""}: convert it with ` +
      `\`didi-serve model convert --from ${folder} --kind ${kind} --out models/NAME\``
    );
  if (architecture !== undefined) return `config.json says that it is a ${architecture}; ${WHICH}`;
  return weights ? `it holds model.safetensors; ${WHICH}` : undefined;
}

/** Return why a checkpoint cannot be converted, from its config.json; undefined if it may be convertible. */
export async function notConvertible(folder: string): Promise<string | undefined> {
  const architecture = await architectureOf(folder);
  if (architecture === undefined || architecture in CONVERTIBLE) return undefined;
  return `config.json says that it is a ${architecture}; ${WHICH}`;
}
