/** Model folders with something wrong in them. */

import { createHash } from "node:crypto";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TINY_GUIDED } from "./support.ts";

/** Changes the bytes of a file of a model folder. */
export type Edit = (bytes: Buffer) => Buffer;

/** A manifest, as far as these tests look at it. */
export type LooseManifest = Record<string, unknown> & { tokenizer: { file: string } };

/** Copies the small guided model to `folder` and changes files of it. */
export async function damagedModel(folder: string, edits: Record<string, Edit>): Promise<string> {
  await cp(TINY_GUIDED, folder, { recursive: true });
  for (const [file, edit] of Object.entries(edits)) {
    const path = join(folder, file);
    await writeFile(path, edit(await readFile(path)));
  }
  return folder;
}

/** The same, and the manifest's sums are those of the changed files: the damage is older than the manifest. */
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

/** Where the row of a token begins in graphs.fp32.bin, told by the graph's own list of its data. */
export async function embeddingRow(folder: string, token: number): Promise<{ start: number; bytes: number }> {
  const graph = await readFile(join(folder, "denoise.fp32.onnx"), "latin1");
  const listed = graph.slice(graph.indexOf("trunk.embeddingj"));
  const [offset, length] = ["offset", "length"].map((key) => {
    const at = listed.indexOf(key) + key.length;
    // A tag and a length stand between the name and the digits.
    return Number(/\d+/.exec(listed.slice(at + 2, at + 20))![0]);
  });
  const { vocab_size } = JSON.parse(await readFile(join(folder, "model.json"), "utf8"));
  const bytes = length! / vocab_size;
  return { start: offset! + token * bytes, bytes };
}
