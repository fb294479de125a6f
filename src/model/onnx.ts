/**
 * Check the external data of an ONNX file: the files that it reads besides itself.
 *
 * ONNX Runtime 1.30 refuses paths outside the folder of the graph, links included (test/model/outside.test.ts
 * checks the installed version), but opens any file inside it that a tensor names. This check allows only the
 * weights that the manifest names, by exactly that name, so that every file that is read has been hashed. It
 * refuses encodings that writers do not use, since another parser might read them differently.
 */

import { readFile } from "node:fs/promises";
import { isAbsolute, join, normalize } from "node:path";
import { StartupError } from "../errors.ts";
import type { ModelFile } from "./manifest.ts";

/** Fields of onnx.proto that lead to tensors: message, field number, message of the field. */
const FIELDS: Record<string, Record<number, string>> = {
  Model: { 7: "Graph", 20: "Training", 25: "Function" },
  Training: { 1: "Graph", 2: "Graph" },
  Function: { 7: "Node", 11: "Attribute" },
  Graph: { 1: "Node", 5: "Tensor", 15: "SparseTensor" },
  Node: { 5: "Attribute" },
  Attribute: { 5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor" },
  SparseTensor: { 1: "Tensor", 2: "Tensor" },
  Tensor: { 13: "Entry" },
};

/** Upper bound of nested messages; real graphs need far fewer. */
const MAX_DEPTH = 200;

/** A range of bytes in the file. */
interface Span {
  at: number;
  end: number;
}

class Malformed extends Error {}

/** Read a varint and advance. Inexact beyond 2^53, which is no valid length. */
function varint(bytes: Buffer, span: Span): number {
  let value = 0;
  for (let scale = 1; span.at < span.end && scale < 2 ** 70; scale *= 128) {
    const byte = bytes[span.at++]!;
    value += (byte & 127) * scale;
    if (byte < 128) return value;
  }
  throw new Malformed();
}

/**
 * Read a tag or a length and advance. Parsers keep its low 32 bits, some silently, so a longer one, or one in
 * more bytes than necessary, could mean different fields to different parsers.
 */
function uint32(bytes: Buffer, span: Span): number {
  const start = span.at;
  const value = varint(bytes, span);
  const isShortest = span.at - start === 1 || bytes[span.at - 1] !== 0;
  if (value >= 2 ** 32 || !isShortest) throw new Malformed();
  return value;
}

/** Iterate over the length-delimited fields of a message. */
function* delimited(bytes: Buffer, message: Span): Generator<[field: number, content: Span]> {
  const span = { ...message };
  while (span.at < span.end) {
    const tag = uint32(bytes, span);
    if (tag < 8) throw new Malformed();
    const wire = tag % 8;
    if (wire === 0) varint(bytes, span);
    else {
      const length = wire === 2 ? uint32(bytes, span) : wire === 1 ? 8 : wire === 5 ? 4 : Number.NaN;
      const content = { at: span.at, end: span.at + length };
      // The length of an unknown wire type is NaN, which fails this too.
      if (!(content.end <= span.end)) throw new Malformed();
      span.at = content.end;
      if (wire === 2) yield [Math.floor(tag / 8), content];
    }
  }
}

const textOf = (bytes: Buffer, { at, end }: Span) => bytes.toString("utf8", at, end);

/** Return every location that a tensor of the model names. Throws Malformed if the bytes are not a model. */
function locationsIn(bytes: Buffer): Set<string> {
  const found = new Set<string>();
  const visit = (message: string, span: Span, depth: number) => {
    if (depth > MAX_DEPTH) throw new Malformed();
    if (message === "Entry") {
      const entry = new Map(
        Array.from(delimited(bytes, span), ([field, content]) => [field, textOf(bytes, content)]),
      );
      if (entry.get(1) === "location") found.add(entry.get(2) ?? "");
      return;
    }
    for (const [field, content] of delimited(bytes, span)) {
      const inner = FIELDS[message]![field];
      if (inner) visit(inner, content, depth + 1);
    }
  };
  visit("Model", { at: 0, end: bytes.length }, 0);
  return found;
}

/**
 * Check that a graph reads no files other than `weights`, which the manifest names with their sha256. Throws
 * StartupError naming the location otherwise.
 */
export async function checkExternalData(
  folder: string,
  graph: ModelFile,
  weights: readonly ModelFile[],
): Promise<void> {
  const path = join(folder, graph.file);
  // ONNX Runtime reads such a file in its own format, which this check does not parse.
  if (/\.ort$/i.test(graph.file))
    throw new StartupError(`${path} is not an ONNX graph: a graph's file must not end in .ort`);
  let locations: Set<string>;
  try {
    locations = locationsIn(await readFile(path));
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new StartupError(`${path} is not an ONNX graph`);
  }
  for (const location of locations) {
    // Compared exactly, since the meaning of a path with `..` or `.` depends on links.
    if (weights.some(({ file }) => file === location)) continue;
    const shown = JSON.stringify(location);
    throw new StartupError(
      isAbsolute(location) || normalize(location).startsWith("..")
        ? `${path} reads ${shown}, which is outside ${folder}: the files of a model must be in its folder`
        : `${path} reads ${shown}, which model.json does not name under weights or discriminator_weights`,
    );
  }
}
