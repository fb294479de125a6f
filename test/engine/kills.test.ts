import assert from "node:assert/strict";
import { test } from "node:test";
import { underKills } from "./kills.ts";

test("50 random kills of runtime processes lose nothing and change no bit", async () => {
  const { kills, answers, different } = await underKills(50, 1);
  assert.equal(kills, 50);
  assert.equal(different, 0);
  assert.ok(answers > 50, `${answers} answers`);
});
