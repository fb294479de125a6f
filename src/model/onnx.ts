/**
 * Which files a graph reads beside its own: the external data of an ONNX file, found in its wire format.
 *
 * ONNX Runtime 1.30 itself refuses places outside of the graph's folder, links included (test/model/outside.test.ts holds
 * the installed version to that), and opens any file inside that a tensor names. Here it must be a file of weights that the
 * manifest names and hashes, by exactly that name, so that whatever is read has been hashed. Of the wire format only the
 * form is taken that writers write: one that another parser might read in another way is refused.
 */

import { readFile } from "node:fs/promises";
import { isAbsolute, join, normalize } from "node:path";
import { StartupError } from "../errors.ts";
import type { ModelFile } from "./manifest.ts";

/** Fields of onnx.proto that lead to tensors: message, number of the field, message of the field. */
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

/** Graphs inside of graphs; no real one comes near. */
const DEEPEST = 200;

/** A part of the file. */
interface Span {
  at: number;
  end: number;
}

class Malformed extends Error {}

/** Read a varint and move on. Beyond 2^53 it is inexact, which no length may be. */
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
 * Read a tag or a length and move on. Parsers keep 32 bits of one, and not all of them say so: what has more, or is
 * written in more bytes than it needs, may mean one field here and another there.
 */
function uint32(bytes: Buffer, span: Span): number {
  const start = span.at;
  const value = varint(bytes, span);
  const isShortest = span.at - start === 1 || bytes[span.at - 1] !== 0;
  if (value >= 2 ** 32 || !isShortest) throw new Malformed();
  return value;
}

/** The fields of a message that have a length; the others are passed over. */
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
      // Also of a wire type that there is not, whose length is NaN.
      if (!(content.end <= span.end)) throw new Malformed();
      span.at = content.end;
      if (wire === 2) yield [Math.floor(tag / 8), content];
    }
  }
}

const textOf = (bytes: Buffer, { at, end }: Span) => bytes.toString("utf8", at, end);

/** Every location that a tensor of the model names. Throws Malformed if it is no model. */
function locationsIn(bytes: Buffer): Set<string> {
  const found = new Set<string>();
  const visit = (message: string, span: Span, depth: number) => {
    if (depth > DEEPEST) throw new Malformed();
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
 * Checks that a graph reads no file but `weights`, which the manifest names with their sha256.
 * Throws StartupError naming the location otherwise.
 */
export async function checkExternalData(
  folder: string,
  graph: ModelFile,
  weights: readonly ModelFile[],
): Promise<void> {
  const path = join(folder, graph.file);
  // ONNX Runtime takes such a file for its own format, which is not looked into here.
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
    // To the letter: what a path with `..` or `.` in it means depends on links.
    if (weights.some(({ file }) => file === location)) continue;
    const shown = JSON.stringify(location);
    throw new StartupError(
      isAbsolute(location) || normalize(location).startsWith("..")
        ? `${path} reads ${shown}, which lies outside of ${folder}: a model's files must lie in its folder`
        : `${path} reads ${shown}, which model.json does not name under weights or discriminator_weights`,
    );
  }
}
