import assert from "node:assert/strict";
import { test } from "node:test";
import { repeatedShare, unigramEntropy } from "../../../src/engine/answers/diversity.ts";

test("entropy is 0 of one token, ln L of L different ones, and between them in between", () => {
  assert.equal(unigramEntropy(new Array(50).fill(7)), 0);
  const all = Array.from({ length: 50 }, (_, i) => i);
  assert.ok(Math.abs(unigramEntropy(all) - Math.log(50)) < 1e-12);
  assert.ok(Math.abs(unigramEntropy([1, 1, 2, 2]) - Math.log(2)) < 1e-12);
  assert.equal(unigramEntropy([]), 0);
});

test("the repeated share counts runs that stood there before", () => {
  assert.equal(repeatedShare([1, 2, 3, 4, 5], 3), 0);
  // 123 234 341 412 123 234: two of six came before.
  assert.equal(repeatedShare([1, 2, 3, 4, 1, 2, 3, 4], 3), 1 - 4 / 6);
  assert.equal(repeatedShare(new Array(12).fill(9), 3), 0.9);
  assert.equal(repeatedShare([1, 2], 3), 0);
});
