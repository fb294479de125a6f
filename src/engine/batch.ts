/** Rows into one `denoise` call, and its answer back to the rows. */

import type { StepPlan } from "../diffusion/sampler.ts";
import { RuntimeFailure } from "../errors.ts";
import type { DenoiseBatch, DenoiseResult } from "../runtime/protocol.ts";

/** Added to a kept mask logit, it leaves the mask a probability of exactly 0 in float32: SUBS. */
const IMPOSSIBLE = -1e9;

/** A row's part of a call. */
export interface BatchRow {
  readonly padded: number;
  readonly tokens: Int32Array;
  readonly temperature: number;
  readonly plan: StepPlan;
}

/** A row's part of the answer, one draw for each planned position. */
export interface RowDraws {
  tokens: Int32Array;
  logprobs: Float32Array;
}

/**
 * Lays rows of one padded length side by side, for the plain sampler: sigma is 0, as in training, and the mask is
 * never drawn. Positions past a row's canvas hold id 0 and are never attended to.
 */
export function buildBatch(rows: readonly BatchRow[]): DenoiseBatch {
  const padded = rows[0]!.padded;
  const count = rows.reduce((sum, row) => sum + row.plan.positions.length, 0);
  const batch: DenoiseBatch = {
    rows: rows.length,
    padded,
    tokens: new Int32Array(rows.length * padded),
    length: Int32Array.from(rows, (row) => row.tokens.length),
    picks: new Int32Array(2 * count),
    draws: Int32Array.from({ length: count }, (_, i) => i),
    uniform: new Float32Array(count),
    temperature: new Float32Array(count),
    topK: new Int32Array(count),
    topP: new Float32Array(count).fill(1),
    sigma: new Float32Array(rows.length),
    maskBias: new Float32Array(rows.length).fill(IMPOSSIBLE),
  };
  let next = 0;
  rows.forEach((row, index) => {
    batch.tokens.set(row.tokens, index * padded);
    row.plan.positions.forEach((position, i) => {
      batch.picks[2 * next] = index;
      batch.picks[2 * next + 1] = position;
      batch.uniform[next] = row.plan.uniforms[i]!;
      batch.temperature[next] = row.temperature;
      next++;
    });
  });
  return batch;
}

/** Each row's draws, or the error of a row whose numbers are not finite (its neighbours are not affected). */
export function splitResult(rows: readonly BatchRow[], result: DenoiseResult): (RowDraws | RuntimeFailure)[] {
  let start = 0;
  return rows.map((row) => {
    const end = start + row.plan.positions.length;
    const draws = { tokens: result.token.slice(start, end), logprobs: result.logprob.slice(start, end) };
    start = end;
    return draws.logprobs.every(Number.isFinite)
      ? draws
      : new RuntimeFailure("the model gave a log-probability that is not finite");
  });
}
