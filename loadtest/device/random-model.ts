/** A model folder of the published size with random weights. */

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GPT2_VOCAB, makeRandomModel } from "../bench/random-model.ts";
import { RECIPE, writeWeights } from "./recipe.ts";

const PUBLISHED = { hidden: 768, blocks: 12, vocab: GPT2_VOCAB, cond: 128, context: 1024 };

/** Return the folder with its weights, which come from its recipe; make it with Python if there is none. */
export async function readyRandomModel(folder: string, python: string): Promise<string> {
  if (existsSync(join(folder, RECIPE))) writeWeights(folder);
  if (existsSync(join(folder, "model.json"))) return folder;
  const checkpoint = mkdtempSync(join(tmpdir(), "didi-random-"));
  try {
    const precisions = ["fp32", "fp16"];
    await makeRandomModel({ ...PUBLISHED, precisions, weights: "fp16", python }, checkpoint, folder);
  } finally {
    rmSync(checkpoint, { recursive: true });
  }
  return folder;
}
