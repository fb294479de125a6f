/** The tokens, log-probabilities and rewards of a request do not depend on other requests: 200 cases. */

import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import { ROUND } from "./cases.ts";
import { conform, SUBJECTS, seedOf } from "./run.ts";

const CASES = 200;
// Finds differences on both models that keep the mask if rows with different budgets share a first pass.
const SEED = 7;

const rounds = Math.ceil(CASES / SUBJECTS.length / ROUND);

for (const [m, subject] of SUBJECTS.entries())
  test(`every trace is the one alone: ${basename(subject.folder)} ${subject.precision}`, async () => {
    const { runs } = await conform(subject, seedOf(SEED, m), Array(rounds).keys());
    assert.equal(runs.length, rounds * ROUND);
    assert.deepEqual(
      runs.filter(({ same }) => !same),
      [],
    );
  });
