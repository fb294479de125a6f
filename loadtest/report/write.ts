/** Leaves a result's folder. */

import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toCsv } from "./csv.ts";
import { pictures } from "./pictures.ts";
import { report } from "./report.ts";
import { resultsFault } from "./results.ts";
import type { Results } from "./types.ts";

/** Writes results.json, results.csv, report.md and the pictures. Throws a bug if the results do not fit their schema. */
export async function writeResults(folder: string, results: Results): Promise<string[]> {
  const fault = resultsFault(results);
  // Written all the same: a run is not measured again for a fault of ours.
  mkdirSync(folder, { recursive: true });
  const put = (name: string, text: string) => {
    writeFileSync(join(folder, `.${name}.part`), text);
    renameSync(join(folder, `.${name}.part`), join(folder, name));
    return name;
  };
  const written = [
    put("results.json", `${JSON.stringify(results, rounded, 1)}\n`),
    put("results.csv", toCsv(results)),
  ];
  if (fault) throw new TypeError(`results do not fit results.schema.json: ${fault}`);
  const drawn = await pictures(results);
  for (const [name, svg] of drawn) written.push(put(name, svg));
  for (const name of [
    "throughput-steps.svg",
    "latency-rate.svg",
    "latency-concurrency.svg",
    "quality-throughput.svg",
  ])
    if (!drawn.has(name)) rmSync(join(folder, name), { force: true });
  written.push(put("report.md", report(results, [...drawn.keys()])));
  return written;
}

/** Six digits are more than a measurement has. */
function rounded(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
}
