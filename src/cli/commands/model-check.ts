/** `didi-serve model check`: check a model folder before it is served. */

import { join } from "node:path";
import type { BatchReport } from "../../engine/scheduling/dispatcher.ts";
import { StartupError } from "../../errors.ts";
import {
  type Manifest,
  type ModelFile,
  type Precision,
  precisionsOf,
  readManifest,
  verifyFile,
  weightFiles,
} from "../../model/manifest.ts";
import { existingFolder, graphOf } from "../../model/model.ts";
import { dotProducts, NO_DOT_PRODUCTS } from "../../model/precision.ts";
import { readTokenizer } from "../../model/tokenizer.ts";
import type { ModelConfig } from "../options.ts";
import { ONE_AT_A_TIME, startEngine, warmUp } from "../start-engine.ts";

/** Settings of the command. */
export type CheckConfig = Pick<ModelConfig, "device" | "threads">;

/** Text that encoding and decoding must return unchanged. */
const SAMPLE = "Once upon a time there was a café.";

/** Return every file of a manifest, without duplicates. */
function filesOf(manifest: Manifest): ModelFile[] {
  const { tokenizer, graphs } = manifest;
  const entries = [
    ...(manifest.rewards ?? []).map(({ file, sha256, bytes }) => ({ file, sha256, bytes })),
    tokenizer,
    ...Object.values(graphs).flatMap((files) => Object.values(files)),
    ...weightFiles(manifest),
  ];
  return [...new Map(entries.map((entry) => [JSON.stringify(entry), entry])).values()];
}

/** Encode and decode a text. Throws StartupError if the tokenizer does not fit the manifest's vocabulary. */
async function checkTokenizer(folder: string, manifest: Manifest): Promise<string> {
  const { vocab_size, mask_token_id, end_of_text_token_id } = manifest;
  const path = join(folder, manifest.tokenizer.file);
  const special = { maskId: mask_token_id, endOfTextId: end_of_text_token_id };
  const tokenizer = await readTokenizer(path, vocab_size, special);
  const ids = tokenizer.encode(SAMPLE, Buffer.byteLength(SAMPLE))!;
  const wrong = ids.find((id) => id === mask_token_id || id === end_of_text_token_id);
  if (wrong !== undefined)
    throw new StartupError(`${path} encodes ordinary text as the special id ${wrong}: ${SAMPLE}`);
  const text = tokenizer.decode(ids);
  // A tokenizer that loses spaces or capitals must at least give the same ids for what it decoded.
  const kept = tokenizer.isLossless
    ? text === SAMPLE
    : `${tokenizer.encode(text, SAMPLE.length)}` === `${ids}`;
  if (!kept) throw new StartupError(`${path} decodes "${SAMPLE}" as "${text}"`);
  return `${manifest.tokenizer.file}: ${vocab_size} ids, ${ids.length} for "${SAMPLE}"`;
}

/** Load the graphs of a precision and run each. Yield a line for each graph. Throws StartupError. */
async function* runGraphs(folder: string, graphs: string[], precision: Precision, config: CheckConfig) {
  const engine = await startEngine({ ...config, model: folder, precision }, ONE_AT_A_TIME);
  try {
    const reports = new Map<string, BatchReport>();
    engine.on("batch", (report) => reports.set(report.graph, report));
    await warmUp(engine, true);
    for (const graph of graphs) {
      const report = reports.get(graph);
      if (!report) throw new StartupError(`${folder}: no step used the graph ${graph}`);
      yield `${graph} in ${precision} on ${engine.pool.provider}, ${report.milliseconds.toFixed(1)} ms`;
    }
  } finally {
    await engine.pool.close();
  }
}

/**
 * Check a model by name or folder and print a line for each check. Throws StartupError at the first fault.
 */
export async function checkModel(nameOrFolder: string, config: CheckConfig): Promise<void> {
  const passed = (what: string, detail: string) => console.log(`ok  ${what.padEnd(9)}  ${detail}`);
  const folder = await existingFolder(nameOrFolder);
  const manifest = await readManifest(folder);
  passed("manifest", `${join(folder, "model.json")}: ${manifest.name}, ${manifest.parameters} parameters`);
  for (const entry of filesOf(manifest)) {
    await verifyFile(folder, entry);
    passed("file", `${entry.file}: ${entry.bytes} bytes, sha256 ${entry.sha256}`);
  }
  passed("tokenizer", await checkTokenizer(folder, manifest));
  for (const precision of precisionsOf(manifest.graphs.denoise)) {
    if (precision === "int8" && dotProducts() === undefined) {
      console.log(`--  graph      int8 is not tried: ${NO_DOT_PRODUCTS}`);
      continue;
    }
    const graphs = [
      ...Object.keys(manifest.graphs),
      ...(manifest.rewards ?? []).map(({ name }) => graphOf(name)),
    ];
    for await (const line of runGraphs(folder, graphs, precision, config)) passed("graph", line);
  }
}
