import assert from "node:assert/strict";
import { test } from "node:test";
import { repeatedShare, unigramEntropy } from "../../../src/engine/answers/diversity.ts";

test("the entropy is 0 for one repeated token and ln L for L different ones", () => {
  assert.equal(unigramEntropy(new Array(50).fill(7)), 0);
  const all = Array.from({ length: 50 }, (_, i) => i);
  assert.ok(Math.abs(unigramEntropy(all) - Math.log(50)) < 1e-12);
  assert.ok(Math.abs(unigramEntropy([1, 1, 2, 2]) - Math.log(2)) < 1e-12);
  assert.equal(unigramEntropy([]), 0);
});

test("the repeated share counts runs that repeat an earlier one", () => {
  assert.equal(repeatedShare([1, 2, 3, 4, 5], 3), 0);
  // 123 234 341 412 123 234: two of six repeat an earlier run.
  assert.equal(repeatedShare([1, 2, 3, 4, 1, 2, 3, 4], 3), 1 - 4 / 6);
  assert.equal(repeatedShare(new Array(12).fill(9), 3), 0.9);
  assert.equal(repeatedShare([1, 2], 3), 0);
});
