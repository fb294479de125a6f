/** Parsing of JSON from clients, its limits, and its errors. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidRequestError } from "../../src/errors.ts";
import { parseJson } from "../../src/server/json.ts";
import { validator } from "../../src/server/openapi.ts";

test("long texts and texts full of quotes and brackets are parsed", () => {
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
  test(`too many ${name} are refused before parsing`, () => {
    assert.throws(
      () => parseJson(Buffer.from(text), () => assert.fail("it was read")),
      (error) => error instanceof InvalidRequestError && /has more than \d+ /.test(error.message),
    );
  });

test("what is not JSON is a SyntaxError", () => {
  for (const text of ["", "{", '"', '"\\', "nul", '{"a":"b}'])
    assert.throws(() => parseJson(Buffer.from(text)), SyntaxError);
});

test("all errors of a small request are reported, and the first of a large one", () => {
  const validate = validator("GenerateRequest");
  const faults = (value: unknown) => {
    const checked = validate(value);
    return "errors" in checked ? checked.errors.map(({ path }) => path) : [];
  };
  assert.deepEqual(faults({ steps: 0, length: 0, stpes: 1 }), ["/stpes", "/length", "/steps"]);
  const tokens = Array(60_000).fill(-1);
  assert.deepEqual(faults({ tokens, steps: 0, stpes: 1 }), ["/stpes"]);
  // The best of several runs, because the machine may be busy.
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    const started = performance.now();
    assert.equal(faults({ tokens }).length, 1);
    best = Math.min(best, performance.now() - started);
  }
  assert.ok(best < 10, `${best} ms`);
});

test("an error shortens a long field name", () => {
  const checked = validator("GenerateRequest")({ ["x".repeat(1_000_000)]: 1 });
  assert.ok("errors" in checked && JSON.stringify(checked.errors).length < 500);
});

const faultOf = (bytes: Buffer): InvalidRequestError => {
  try {
    parseJson(bytes);
  } catch (error) {
    assert.ok(error instanceof InvalidRequestError, String(error));
    return error;
  }
  return assert.fail("it was read");
};

/** Bytes that are not UTF-8, and the position of the first wrong one. */
const BROKEN: [name: string, bytes: Buffer, position: number][] = [
  ["Latin-1", Buffer.from('{"prompt": "café"}', "latin1"), 15],
  ["UTF-16", Buffer.from('\ufeff{"prompt": "a"}', "utf16le"), 0],
  ["a surrogate in UTF-8 (CESU)", Buffer.from([0x22, 0xed, 0xa0, 0xbd, 0x22]), 1],
  ["an overlong slash", Buffer.from([0x22, 0x61, 0xc0, 0xaf, 0x22]), 2],
  ["a character that is cut off", Buffer.from("{} €").subarray(0, -1), 3],
  ["a byte after a valid replacement character", Buffer.from([0x22, 0xef, 0xbf, 0xbd, 0xff, 0x22]), 4],
];

for (const [name, bytes, position] of BROKEN)
  test(`${name} is refused with its position`, () => {
    assert.match(faultOf(bytes).message, new RegExp(`is not UTF-8: .* at position ${position}: `));
  });

/** JSON with half of a surrogate pair, its path, and its position in the string. */
const HALVES: [text: string, path: string, position: number][] = [
  ['{"prompt": "ab\\ud83d"}', "/prompt", 2],
  ['{"stop": ["x", "😀\\uDE00"]}', "/stop/1", 1],
  ['{"id": "\\ud83d\\ud83d\\ude00", "prompt": "a"}', "/id", 0],
  ['{"a/b": {"~": "\\udfff"}}', "/a~1b/~0", 0],
];

for (const [text, path, position] of HALVES)
  test(`half of a surrogate pair in ${path} is refused`, () => {
    const { fields } = faultOf(Buffer.from(text));
    assert.equal(fields[0]!.path, path);
    assert.match(fields[0]!.message, new RegExp(`one half of a character, at character ${position}: `));
  });

test("whole pairs are parsed, escaped or not, and so is text that only looks like an escape", () => {
  for (const text of ['"\\ud83d\\ude00"', '"😀 \\uD83D\\uDE00"', '"\\\\ud83d"', '"\\ud7ff\\ue000"'])
    assert.equal(parseJson(Buffer.from(text)), JSON.parse(text));
  assert.throws(() => parseJson(Buffer.from('{"\\ud83d": 1}')), /half of a character/);
});

test("a byte order mark is skipped, once and at the start", () => {
  for (const text of ['{"a":1}', "[]", '"\ufeff"']) {
    const marked = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(text)]);
    assert.deepEqual(parseJson(marked), JSON.parse(text));
  }
  assert.throws(() => parseJson(Buffer.from("\ufeff\ufeff{}")), SyntaxError);
  assert.throws(() => parseJson(Buffer.from("\ufeff")), SyntaxError);
});
