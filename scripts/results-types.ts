/** Writes loadtest/report/results-types.ts from the schema of the load test's results; part of `npm run types`. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString, type OpenAPI3 } from "openapi-typescript";
import { PACKAGE_ROOT } from "../src/package-root.ts";

const SCHEMA = join(PACKAGE_ROOT, "loadtest", "report", "results.schema.json");
const TYPES = join(PACKAGE_ROOT, "loadtest", "report", "results-types.ts");

/** The types as the schema says they are now. */
export async function resultsTypes(): Promise<string> {
  const { $defs } = JSON.parse(
    readFileSync(SCHEMA, "utf8").replaceAll("#/$defs/", "#/components/schemas/"),
  ) as { $defs: Record<string, object> };
  const document = {
    openapi: "3.1.0",
    info: { title: "results", version: "1" },
    paths: {},
    components: { schemas: $defs },
  };
  const head = "/** Generated from results.schema.json by `npm run types`; do not edit. */\n\n";
  return head + astToString(await openapiTS(document as OpenAPI3));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(TYPES, await resultsTypes());
