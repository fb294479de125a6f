/** The schemas that the server trusts are valid, and what the meta-schema refuses is not. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { CONTRACT } from "../src/server/openapi.ts";

const ajv = new Ajv2020({ allErrors: true });
const faultsOf = (schema: object) => {
  ajv.validateSchema(schema);
  return ajv.errorsText(ajv.errors);
};

test("models/model.schema.json is a valid schema", async () => {
  const schema = JSON.parse(await readFile(join(PACKAGE_ROOT, "models", "model.schema.json"), "utf8"));
  assert.equal(faultsOf(schema), "No errors");
});

for (const [name, schema] of Object.entries<object>(CONTRACT.components.schemas))
  test(`${name} in openapi.yaml is a valid schema`, () => assert.equal(faultsOf(schema), "No errors"));

test("a schema with a wrong keyword value is refused", () => {
  assert.match(faultsOf({ type: "object", properties: { a: { minimum: "1" } } }), /minimum must be number/);
});
