import assert from "node:assert/strict";
import { test } from "node:test";
import { underKills } from "./kills.ts";

test("50 random kills of workers lose nothing and change no bit", async () => {
  const { kills, answers, different } = await underKills(50, 1);
  assert.equal(kills, 50);
  assert.equal(different, 0);
  assert.ok(answers > 50, `${answers} answers`);
});

test("a stopped run returns what it has so far", async () => {
  const stop = new AbortController();
  const report = await underKills(1000, 3, (done) => done === 2 && stop.abort(), stop.signal);
  assert.equal(report.kills, 2);
  assert.equal(report.different, 0);
});
