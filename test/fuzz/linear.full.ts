/**
 * The time of the tokenizer and of the template parser is linear in the length of any text. The tests allow a
 * factor of eight for four times the text; quadratic time would take sixteen.
 */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { layoutOf } from "../../src/engine/layout.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import { type Model, openModel } from "../../src/model/model.ts";
import { Tokenizer } from "../../src/model/tokenizer.ts";
import { PATTERNS, parseTokenizer } from "../../src/model/tokenizer-file.ts";
import { MODEL } from "../support/engine.ts";

/** Characters of the longest text. */
const MEGABYTE = 1 << 20;
const TIMES = 4;
const MOST = 9;

let model: Model;
before(async () => {
  model = await openModel(MODEL);
});

/** Milliseconds of processor time of a run: what else the machine does is not counted. */
function timeOf(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/**
 * Assert that four times as much takes linear time: in one of five tries, because any may include a garbage
 * collection, whereas quadratic time exceeds the limit in each.
 *
 * @param least milliseconds up to which times are too short to be compared
 */
function assertLinear(short: () => void, long: () => void, least = 0): void {
  const tries: string[] = [];
  for (let i = 0; i < 5; i++) {
    const [few, many] = [timeOf(short), timeOf(long)];
    if (many <= Math.max(MOST * few, least)) return;
    tries.push(`${few.toFixed(0)} ms, then ${many.toFixed(0)} ms`);
  }
  assert.fail(`for ${TIMES} times as much: ${tries.join("; ")}`);
}

/** The first three at full length, the others at a quarter, because a megabyte takes seconds. */
const HOSTILE: [name: string, unit: string][] = [
  ["one letter", "a"],
  ["spaces", " "],
  ["combining marks", "\u0301"],
  ["opening braces", "{{"],
  ["beginnings of spans", "{{mask:"],
  ["digits", "1"],
  ["apostrophes", "'"],
  ["lone surrogates", "\ud800"],
];

const textOf = (unit: string, length: number) => unit.repeat(Math.ceil(length / unit.length));

for (const [i, [name, unit]] of HOSTILE.entries()) {
  const most = i < 3 ? MEGABYTE : MEGABYTE / 4;
  test(`tokenising ${most} characters of ${name} is linear`, () => {
    const [short, long] = [textOf(unit, most / TIMES), textOf(unit, most)];
    let ids = 0;
    const encode = (text: string) => () => {
      ids = model.tokenizer.encode(text, Number.MAX_SAFE_INTEGER)!.length;
    };
    assertLinear(encode(short), encode(long));
    assert.ok(ids > 0);
  });

  test(`a template of a megabyte of ${name} is refused in linear time`, () => {
    const parse = (text: string) => () =>
      assert.throws(() => layoutOf(model, { template: text }), InvalidRequestError);
    assertLinear(parse(textOf(unit, MEGABYTE)), parse(textOf(unit, TIMES * MEGABYTE)), 50);
  });
}

/** Characters that the expressions have rules for. */
const UNITS = ["a", " ", "\n", " \n", "1", "'S", " !", "  a"];
const LONG = 1 << 16;

// GPT-2's expression is tested above, through the library.
for (const [name, Regex] of Object.entries(PATTERNS).filter(([name]) => name !== "GPT-2"))
  test(`splitting as ${name} does is linear`, async () => {
    const file = JSON.parse(await readFile(join(model.folder, "tokenizer.json"), "utf8"));
    const pretokenizers = [
      { type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", use_regex: false },
    ];
    const text = JSON.stringify({ ...file, pre_tokenizer: { type: "Sequence", pretokenizers } });
    const { vocabSize, special } = model.tokenizer;
    const tokenizer = new Tokenizer(parseTokenizer(text, vocabSize), vocabSize, special);
    const encode = (text: string) => () => tokenizer.encode(text, Number.MAX_SAFE_INTEGER);
    for (const unit of UNITS) assertLinear(encode(textOf(unit, LONG / TIMES)), encode(textOf(unit, LONG)));
  });
