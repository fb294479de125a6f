import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import openapiTS, { astToString } from "openapi-typescript";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { CONTRACT, type Schemas, validator } from "../../src/server/openapi.ts";

test("the generated types are those of openapi.yaml (npm run types)", async () => {
  const ast = await openapiTS(new URL(`file://${join(PACKAGE_ROOT, "openapi.yaml")}`));
  const written = await readFile(join(PACKAGE_ROOT, "src", "server", "api-types.ts"), "utf8");
  assert.equal(written.replace(/^\/\*\*[\s\S]*?\*\/\s*/, "").trim(), astToString(ast).trim());
});

test("every schema compiles, and every example of a request is valid", () => {
  for (const name of Object.keys(CONTRACT.components.schemas)) validator(name as keyof Schemas);
  const { schema, example } = CONTRACT.paths["/generate"].post.requestBody.content["application/json"];
  assert.equal(schema.$ref, "#/components/schemas/GenerateRequest");
  assert.ok("value" in validator("GenerateRequest")(structuredClone(example)));
});
