/** Tokens, log-probabilities and rewards of a request are its own, whatever runs beside it: 200 cases. */

import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import { FIXTURES } from "../support/engine.ts";
import { ROUND } from "./cases.ts";
import { conform, seedOf } from "./run.ts";

const CASES = 200;
// It finds different traces on both models that keep the mask if rows of other budgets share a first pass.
const SEED = 7;

const rounds = Math.ceil(CASES / FIXTURES.length / ROUND);

for (const [m, folder] of FIXTURES.entries())
  test(`every trace is the one alone: ${basename(folder)}`, async () => {
    const { runs } = await conform(folder, seedOf(SEED, m), Array(rounds).keys());
    assert.equal(runs.length, rounds * ROUND);
    assert.deepEqual(
      runs.filter(({ same }) => !same),
      [],
    );
  });
