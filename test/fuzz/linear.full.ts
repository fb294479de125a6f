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

/**
 * Milliseconds of processor time, the least of some runs: what else the machine does is not counted, and its
 * traces only add.
 */
function fastest(run: () => void, repeats: number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < repeats; i++) {
    const before = process.cpuUsage();
    run();
    const { user, system } = process.cpuUsage(before);
    least = Math.min(least, (user + system) / 1000);
  }
  return least;
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
    const few = fastest(encode(short), 2);
    const many = fastest(encode(long), 1);
    assert.ok(ids > 0);
    assert.ok(
      many <= MOST * few,
      `${few.toFixed(0)} ms, then ${many.toFixed(0)} ms for ${TIMES} times as much`,
    );
  });

  test(`a template of a megabyte of ${name} is refused in linear time`, () => {
    const parse = (text: string) => () =>
      assert.throws(() => layoutOf(model, { template: text }), InvalidRequestError);
    const few = fastest(parse(textOf(unit, MEGABYTE)), 3);
    const many = fastest(parse(textOf(unit, TIMES * MEGABYTE)), 3);
    // Times that are too short cannot be compared.
    assert.ok(many <= Math.max(MOST * few, 50), `${few} ms, then ${many} ms`);
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
    for (const unit of UNITS) {
      // The minimum of three tries, because each may include a garbage collection.
      const ratios = Array.from({ length: 3 }, () => {
        const few = fastest(encode(textOf(unit, LONG / TIMES)), 1);
        return fastest(encode(textOf(unit, LONG)), 1) / few;
      });
      assert.ok(Math.min(...ratios) <= MOST, `${JSON.stringify(unit)}: ${ratios}`);
    }
  });
