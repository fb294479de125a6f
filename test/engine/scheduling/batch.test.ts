import assert from "node:assert/strict";
import { test } from "node:test";
import { denoiseInput, splitDraws } from "../../../src/engine/scheduling/batch.ts";
import { NonFiniteError } from "../../../src/errors.ts";
import { openModel } from "../../../src/model/model.ts";
import { rowsOf } from "../../runtime/rows.ts";
import { MODEL } from "../../support/engine.ts";

for (const field of ["logprob", "entropy"] as const)
  test(`a row whose ${field} is not finite has an error, and the other row has its draws`, async () => {
    const rows = rowsOf(await openModel(MODEL), 2);
    const input = denoiseInput(rows);
    const result = {
      token: new Int32Array(input.draws.length).fill(5),
      logprob: new Float32Array(input.draws.length).fill(-1),
      entropy: new Float32Array(input.picks.length / 2).fill(2),
      topToken: new Int32Array(),
      topLogprob: new Float32Array(),
      milliseconds: 1,
    };
    result[field][result[field].length - 1] = Number.NaN;
    const [first, second] = splitDraws(rows, input, result);
    assert.ok(second instanceof NonFiniteError);
    assert.match(second.message, field === "entropy" ? /entropy/ : /log-probability/);
    assert.ok(first && !(first instanceof Error));
    assert.equal(first.entropy, 2);
    assert.equal(first.candidates[0]!.tokens.length, rows[0]!.plan.candidates[0]!.positions.length);
  });
