/** The folder of a result: results.json, results.csv, report.md and the pictures. */

import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { StartupError } from "../../src/errors.ts";
import { PICTURES, pictures } from "./pictures.ts";
import { report } from "./report.ts";
import { clientsOf } from "./select.ts";
import { FIGURES } from "./summary.ts";
import type { Results } from "./types.ts";

/** Lists of every result, and fields of every cell, which distinguish results from other JSON. */
const [LISTS, FIELDS] = [
  ["sides", "cells", "knees", "quality", "warnings"],
  ["id", "load", "shapes", "summary"],
];

/** Return why a value is not a result; undefined if it is one. */
function fault(value: unknown): string | undefined {
  const results = value as Partial<Record<string, unknown>> | null;
  if (results?.format_version !== 1) return "format_version is not 1";
  for (const name of LISTS) if (!Array.isArray(results[name])) return `${name} is not a list`;
  for (const [i, cell] of (value as Results).cells.entries()) {
    const missing =
      FIELDS.find((name) => !(name in cell)) ??
      (Array.isArray(cell.measurements) ? undefined : "measurements");
    if (missing) return `cells/${i} has no ${missing}`;
  }
  return undefined;
}

/** Read results from a file or its folder. Throws StartupError. */
export function readResults(path: string): Results {
  try {
    const file = statSync(path).isDirectory() ? join(path, "results.json") : path;
    const value: unknown = JSON.parse(readFileSync(file, "utf8"));
    const why = fault(value);
    if (why) throw new Error(`not a result of the load test: ${why}`);
    return value as Results;
  } catch (error) {
    throw new StartupError(`${path}: ${(error as Error).message}`, 2);
  }
}

/**
 * Write the folder of a result; return the names of the files. Removes outdated pictures of an earlier run.
 */
export async function writeResults(folder: string, results: Results): Promise<string[]> {
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
  const drawn = await pictures(results);
  for (const name of PICTURES) if (!drawn.has(name)) rmSync(join(folder, name), { force: true });
  for (const [name, svg] of drawn) written.push(put(name, svg));
  written.push(put("report.md", report(results, [...drawn.keys()])));
  return written;
}

/** Round to six digits, more than a measurement has. */
function rounded(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
}

const quote = (value: string | number | undefined) =>
  typeof value === "string" && /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : (value ?? "");

/** Return a header and a row for each measurement; missing values are empty. */
function toCsv({ cells }: Results): string {
  const head = ["side", "transport", "clients", "rate_per_second", "steps", "length", "guidance", "traffic"];
  const counts = ["repeat", "started_s", "seconds", "requests", "tokens", "errors"];
  const rows = cells.flatMap((cell) => {
    const { side, transport, load, shapes, measurements } = cell;
    const [shape] = shapes.length === 1 ? shapes : [];
    const names = shapes.map(({ name }) => name).join(" + ");
    const rate = load.kind === "open" ? load.rate : undefined;
    return measurements.map((m) => [
      ...[side, transport, clientsOf(cell), rate, shape?.steps, shape?.length, shape?.guidance, names],
      ...[m.repeat, m.started_s.toFixed(2), m.seconds.toFixed(4), m.requests, m.tokens],
      Object.values(m.errors).reduce((sum, count) => sum + count, 0),
      ...Object.values(FIGURES).map((read) => {
        const value = read(m);
        return value === undefined ? undefined : Number(value.toPrecision(6));
      }),
    ]);
  });
  return [[...head, ...counts, ...Object.keys(FIGURES)], ...rows]
    .map((row) => `${row.map(quote).join(",")}\n`)
    .join("");
}
