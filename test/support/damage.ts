/** Damaged model folders. */

import { createHash } from "node:crypto";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TINY_GUIDED } from "./engine.ts";

/** Change the bytes of a file of a model folder. */
export type Edit = (bytes: Buffer) => Buffer;

/** Copy the small guided model to `folder` and change files of it. */
export async function damagedModel(folder: string, edits: Record<string, Edit>): Promise<string> {
  await cp(TINY_GUIDED, folder, { recursive: true });
  for (const [file, edit] of Object.entries(edits)) {
    const path = join(folder, file);
    await writeFile(path, edit(await readFile(path)));
  }
  return folder;
}

/**
 * The same, with the hashes of the changed files in the manifest, as if they were damaged before.
 */
export async function mismadeModel(folder: string, edits: Record<string, Edit>): Promise<string> {
  await damagedModel(folder, edits);
  const path = join(folder, "model.json");
  const files = new Map<string, Buffer>();
  for (const file of Object.keys(edits)) files.set(file, await readFile(join(folder, file)));
  const manifest = JSON.parse(await readFile(path, "utf8"), (_key, value) => {
    const bytes = files.get(value?.file);
    if (!bytes) return value;
    return { ...value, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
  });
  await writeFile(path, JSON.stringify(manifest));
  return folder;
}

/** Set the embedding of a token to NaN, in float16. */
export function withoutEmbedding(weights: Buffer, token: number): Buffer {
  const size = Number(weights.readBigUInt64LE());
  const { shape, data_offsets } = JSON.parse(weights.toString("utf8", 8, 8 + size))["vocab_embed.embedding"];
  const row = 2 * shape[1];
  const start = 8 + size + data_offsets[0] + token * row;
  for (let at = start; at < start + row; at += 2) weights.writeUInt16LE(0x7e00, at);
  return weights;
}
