/** The results file: checked on the way in and out. */

import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Ajv } from "ajv";
import { StartupError } from "../../src/errors.ts";
import type { Results } from "./types.ts";

const SCHEMA = JSON.parse(readFileSync(new URL("results.schema.json", import.meta.url), "utf8"));
const ajv = new Ajv({
  allErrors: true,
  allowUnionTypes: true,
  formats: { "date-time": /^\d{4}-\d\d-\d\dT[\d:.]+Z$/ },
});
const valid = ajv.compile<Results>(SCHEMA);

/** What is wrong with results, in one line; undefined if nothing is. */
export function resultsFault(value: unknown): string | undefined {
  return valid(value) ? undefined : ajv.errorsText(valid.errors, { dataVar: "" });
}

/** Reads results from a file, or from the folder that holds it. Throws StartupError. */
export function readResults(path: string): Results {
  try {
    const file = statSync(path).isDirectory() ? join(path, "results.json") : path;
    const value: unknown = JSON.parse(readFileSync(file, "utf8"));
    const fault = resultsFault(value);
    if (fault) throw new Error(`these are no results of a load test: ${fault}`);
    return value as Results;
  } catch (error) {
    throw new StartupError(`${path}: ${(error as Error).message}`, 2);
  }
}
