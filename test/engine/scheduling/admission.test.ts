import assert from "node:assert/strict";
import { test } from "node:test";
import { Admission } from "../../../src/engine/scheduling/admission.ts";
import type { Row } from "../../../src/engine/scheduling/row.ts";

interface Given {
  attained?: number;
  running?: boolean;
  urgent?: boolean;
  due?: boolean;
}

/** Rows by name, of which `admit` reads these fields alone. */
const rowsOf = (given: Record<string, Given>) =>
  Object.entries(given).map(
    ([name, fields]) =>
      ({ name, attained: 0, running: false, urgent: false, ...fields }) as unknown as Row & { name: string },
  );
const isDue = (row: Row) => "due" in row && row.due === true;
const names = (rows: readonly Row[]) => rows.map((row) => ("name" in row ? row.name : "")).join("");

test("rows are admitted in order of arrival up to the limit, and those that are gone make room", () => {
  const admission = new Admission(2);
  const rows = rowsOf({ a: {}, b: {}, c: {}, d: {} });
  assert.equal(admission.free, 2);
  admission.add(rows[0]!);
  assert.deepEqual([admission.free, names(admission.queued)], [1, ""]);
  for (const row of rows.slice(1)) admission.add(row);
  assert.deepEqual([admission.free, names(admission.queued)], [0, "cd"]);
  admission.admit(isDue);
  assert.deepEqual([names(admission.active), names(admission.waiting), admission.free], ["ab", "cd", 0]);
  admission.remove((row) => "ac".includes(names([row])));
  assert.deepEqual([names(admission.active), names(admission.waiting)], ["b", "d"]);
  admission.admit(isDue);
  assert.deepEqual([names(admission.active), names(admission.waiting), admission.free], ["bd", "", 0]);
});

/** What is active and what waits, with two places, after `x`, a due row, has come to these. */
const DISPLACED: [title: string, given: Record<string, Given>, active: string, waiting: string][] = [
  ["the row with the most service", { a: { attained: 5 }, b: { attained: 9 }, c: {} }, "ax", "bc"],
  ["no row that runs", { a: { attained: 5 }, b: { attained: 9, running: true }, c: {} }, "bx", "ac"],
  ["no urgent row", { a: { attained: 5 }, b: { attained: 9, urgent: true }, c: {} }, "bx", "ac"],
  ["no row that is due too", { a: { due: true }, b: { attained: 1, due: true }, c: {} }, "ab", "xc"],
  ["none while a place is free", { a: { attained: 5 } }, "ax", ""],
];
for (const [title, given, active, waiting] of DISPLACED)
  test(`a due row takes the place of: ${title}`, () => {
    const admission = new Admission(2);
    const rows = rowsOf(given);
    for (const row of rows) admission.add(row);
    admission.admit(() => false);
    admission.add(rowsOf({ x: { due: true } })[0]!);
    admission.admit(isDue);
    assert.deepEqual([names(admission.active), names(admission.waiting)], [active, waiting]);
  });
