/** What the figures were taken on. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { cpus, totalmem } from "node:os";

const require = createRequire(import.meta.url);

/** Processor, memory, versions and model, in a line. */
export function machine(model: string): string {
  const manifest = require.resolve("onnxruntime-node/package.json");
  const ort = (JSON.parse(readFileSync(manifest, "utf8")) as { version: string }).version;
  return (
    `${cpus().length} x ${cpus()[0]!.model.trim()}, ${Math.round(totalmem() / 1e9)} GB, Node ${process.version}, ` +
    `onnxruntime-node ${ort}, CPU; model ${model}`
  );
}

/** Prints it. */
export function sayMachine(model: string): void {
  console.log(machine(model));
}
