/** Errors of wrong fields name the field that was meant. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Schemas, validator } from "../../src/server/openapi.ts";

const CASES: [schema: keyof Schemas, field: string, value: unknown, message: string][] = [
  ["GenerateRequest", "max_tokens", 64, "is called length here"],
  ["GenerateRequest", "maxNewTokens", 64, "is called length here"],
  ["GenerateRequest", "num_inference_steps", 8, "is called steps here"],
  ["GenerateRequest", "stop_sequences", ["."], "is called stop here"],
  ["GenerateRequest", "timeout", 1, "is called deadline_ms here"],
  ["GenerateRequest", "temprature", 1, "is not a field of this request: did you mean temperature?"],
  ["GenerateRequest", "step", 8, "is not a field of this request: did you mean steps?"],
  ["GenerateRequest", "topP", 0.9, "is not a field of this request: did you mean top_p?"],
  [
    "GenerateRequest",
    "stream",
    true,
    "is not a field of this request: send Accept: text/event-stream instead",
  ],
  ["GenerateRequest", "presence_penalty", 1, "is not a field of this request"],
  ["GenerateRequest", "toString", 1, "is not a field of this request"],
  ["GenerateRequest", "guidance", "rgas", 'must be an object: {"mode":"rgas"}'],
  ["GenerateRequest", "guidance", "on", 'must be an object: {"mode":"none"}'],
  ["GenerateRequest", "guidance", 3, "must be object, and is 3"],
  ["CompletionRequest", "length", 64, "is called max_tokens here"],
];

for (const [schema, field, value, message] of CASES)
  test(`${schema}: ${field} ${JSON.stringify(value)} ${message}`, () => {
    const checked = validator(schema)({ model: "m", prompt: "a", [field]: value });
    const errors = "errors" in checked ? checked.errors : [];
    assert.deepEqual(
      errors.filter(({ path }) => path === `/${field}`),
      [{ path: `/${field}`, message }],
    );
  });

test("a suggestion inside an object names a field of that object", () => {
  const checked = validator("GenerateRequest")({ prompt: "a", guidance: { mode: "rgas", candidate: 4 } });
  assert.deepEqual(checked, {
    errors: [
      {
        path: "/guidance/candidate",
        message: "is not a field of this request: did you mean candidates?",
      },
    ],
  });
});
