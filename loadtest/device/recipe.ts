/**
 * Weights that need not travel: a recipe of a few kilobytes, from which any machine writes the same file of
 * random weights.
 *
 * A folder of random weights is as large as one of trained weights, and any weights of the same mean and
 * deviation do for measuring. So a folder travels with the head of each weight file and two numbers for each
 * tensor, and the values come from a generator.
 */

import { createHash } from "node:crypto";
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { type Manifest, type ModelFile, weightFiles } from "../../src/model/manifest.ts";

/** Name of the recipe in a model folder. */
export const RECIPE = "weights.json";

/** How to write one safetensors file in float16. */
interface Recipe {
  file: string;
  /** JSON at the start of the file. */
  head: string;
  /** In the order of the file. */
  tensors: { values: number; mean: number; deviation: number }[];
}

interface Entry {
  dtype: string;
  data_offsets: [number, number];
}

/** Values drawn from: a standard normal distribution at equal steps of probability, by twelve uniforms. */
const LEVELS = 4096;
const CHUNK = 1 << 22;

/** A generator of 32-bit numbers: Marsaglia's xorshift. */
function generator(seed: number): () => number {
  let word = (Math.imul(seed + 1, 0x9e37_79b9) >>> 0) | 1;
  return () => {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    return word >>> 0;
  };
}

/** Return LEVELS values of mean 0 and deviation 1: sums of twelve uniform numbers, exact in float64. */
function levels(): Float64Array {
  const next = generator(0);
  return Float64Array.from({ length: LEVELS }, () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += (next() >>> 12) / 2 ** 20;
    return sum;
  });
}

/** Return a number as the bits of the nearest float16, of magnitude below 65504. */
export function halfBits(value: number): number {
  const size = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -24)));
  const mantissa = Math.round(size * 2 ** (10 - exponent));
  // Below 1024 the number is subnormal; 2048 carries into the exponent.
  return sign | (mantissa < 1024 ? mantissa : ((exponent + 14) << 10) + mantissa);
}

/** Return the value of the bits of a float16. */
function ofHalf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const size = exponent === 0 ? (bits & 1023) * 2 ** -24 : ((bits & 1023) + 1024) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -size : size;
}

/** Read a weight file: its head, and mean and deviation of each tensor. Throws if it is not in float16. */
function describe(folder: string, file: string): Recipe {
  const path = join(folder, file);
  const open = openSync(path, "r");
  const read = (from: number, bytes: number) => {
    const buffer = Buffer.alloc(bytes);
    readSync(open, buffer, 0, bytes, from);
    return buffer;
  };
  const size = Number(read(0, 8).readBigUInt64LE());
  const head = read(8, size).toString("utf8");
  const { __metadata__: _, ...entries } = JSON.parse(head) as Record<string, Entry>;
  const inOrder = Object.entries(entries).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0]);
  const tensors = inOrder.map(
    ([
      name,
      {
        dtype,
        data_offsets: [start, end],
      },
    ]) => {
      if (dtype !== "F16") throw new Error(`${path}: ${name} is ${dtype}, not F16`);
      const bits = read(8 + size + start, end - start);
      const count = bits.length / 2;
      let [sum, squares] = [0, 0];
      for (let i = 0; i < bits.length; i += 2) {
        const value = ofHalf(bits.readUInt16LE(i));
        sum += value;
        squares += value * value;
      }
      const mean = sum / count;
      return { values: count, mean, deviation: Math.sqrt(Math.max(0, squares / count - mean * mean)) };
    },
  );
  closeSync(open);
  return { file, head, tensors };
}

/** Write a weight file by its recipe. Return its sha256 and its size. */
function cook(folder: string, { file, head, tensors }: Recipe): Pick<ModelFile, "sha256" | "bytes"> {
  const normal = levels();
  const hash = createHash("sha256");
  const open = openSync(join(folder, file), "w");
  let bytes = 0;
  const write = (buffer: Buffer) => {
    writeSync(open, buffer);
    hash.update(buffer);
    bytes += buffer.length;
  };
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(Buffer.byteLength(head)));
  write(size);
  write(Buffer.from(head));
  for (const [i, { values, mean, deviation }] of tensors.entries()) {
    const bits = Uint16Array.from(normal, (level) => halfBits(mean + deviation * level));
    const next = generator(i);
    for (let from = 0; from < values; from += CHUNK) {
      const chunk = new Uint16Array(Math.min(CHUNK, values - from));
      for (let at = 0; at < chunk.length; at++) chunk[at] = bits[next() >>> 20]!;
      write(Buffer.from(chunk.buffer));
    }
  }
  closeSync(open);
  return { sha256: hash.digest("hex"), bytes };
}

const readManifest = (folder: string) =>
  JSON.parse(readFileSync(join(folder, "model.json"), "utf8")) as Manifest;

/** Write the weights of a folder that has a recipe, unless they are there. */
export function writeWeights(folder: string): void {
  const manifest = readManifest(folder);
  for (const recipe of JSON.parse(readFileSync(join(folder, RECIPE), "utf8")) as Recipe[]) {
    const { bytes } = weightFiles(manifest).find(({ file }) => file === recipe.file)!;
    const path = join(folder, recipe.file);
    if (!existsSync(path) || statSync(path).size !== bytes) cook(folder, recipe);
  }
}

/** Copy a model folder with a recipe in place of its weights. */
export function copyWithRecipe(folder: string, to: string): void {
  mkdirSync(to, { recursive: true });
  const manifest = readManifest(folder);
  const weights = weightFiles(manifest);
  const weighty = new Set(weights.map(({ file }) => file));
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isFile() && !weighty.has(entry.name)) cpSync(join(folder, entry.name), join(to, entry.name));
  const recipes = weights.map(({ file }) => describe(folder, file));
  for (const [i, recipe] of recipes.entries()) {
    Object.assign(weights[i]!, cook(to, recipe));
    rmSync(join(to, recipe.file));
  }
  writeFileSync(join(to, "model.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  writeFileSync(join(to, RECIPE), `${JSON.stringify(recipes)}\n`);
}
