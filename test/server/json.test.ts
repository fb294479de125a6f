/** JSON from clients: what is read, what is refused for its parts, and what it is told of a large mistake. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidRequestError } from "../../src/errors.ts";
import { parseJson } from "../../src/server/json.ts";
import { validator } from "../../src/server/openapi.ts";

test("texts that are long, or full of quotes and brackets, are read", () => {
  for (const value of [
    { prompt: '{["'.repeat(50_000) },
    { prompt: '\\"'.repeat(50_000), "a\\": "b" },
    { tokens: Array.from({ length: 65_536 }, (_, i) => i) },
    { prompt: "é\u2028😀\\" },
  ])
    assert.deepEqual(parseJson(Buffer.from(JSON.stringify(value))), value);
});

const MANY: [name: string, text: string][] = [
  ["fields", `{${Array.from({ length: 2000 }, (_, i) => `"f${i}":1`).join()}}`],
  ["lists", "[".repeat(2000)],
  ["texts", JSON.stringify(Array(2000).fill('\\"'))],
  ["values", JSON.stringify(Array(200_000).fill(1))],
];

for (const [name, text] of MANY)
  test(`too many ${name} are refused before they are read`, () => {
    assert.throws(
      () => parseJson(Buffer.from(text), () => assert.fail("it was read")),
      (error) => error instanceof InvalidRequestError && /has more than \d+ /.test(error.message),
    );
  });

test("what is not JSON is a SyntaxError", () => {
  for (const text of ["", "{", '"', '"\\', "nul", '{"a":"b}'])
    assert.throws(() => parseJson(Buffer.from(text)), SyntaxError);
});

test("a small request is told of all that is wrong with it, a large one of the first", () => {
  const validate = validator("GenerateRequest");
  const faults = (value: unknown) => {
    const checked = validate(value);
    return "errors" in checked ? checked.errors.map(({ path }) => path) : [];
  };
  assert.deepEqual(faults({ steps: 0, length: 0, stpes: 1 }), ["/stpes", "/length", "/steps"]);
  const tokens = Array(60_000).fill(-1);
  assert.deepEqual(faults({ tokens, steps: 0, stpes: 1 }), ["/stpes"]);
  // Best of some, since the machine may be busy.
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    const started = performance.now();
    assert.equal(faults({ tokens }).length, 1);
    best = Math.min(best, performance.now() - started);
  }
  assert.ok(best < 10, `${best} ms`);
});

test("a name that is long is not told back whole", () => {
  const checked = validator("GenerateRequest")({ ["x".repeat(1_000_000)]: 1 });
  assert.ok("errors" in checked && JSON.stringify(checked.errors).length < 500);
});
