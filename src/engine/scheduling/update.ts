/** Turn rows into a batch, and apply its result to the rows. */

import type { StepRecord } from "../../diffusion/step.ts";
import type { GraphName, Graphs } from "../../runtime/protocol.ts";
import { denoiseInput, drawOrder, scoreInput, splitDraws, splitRewards, tiltInput } from "./batch.ts";
import type { Row } from "./row.ts";

/** A batch that is ready to run. */
export interface PreparedBatch {
  graph: GraphName;
  /** In the order of the result. */
  rows: readonly Row[];
  input: Graphs[GraphName]["input"];
  /** Canvases times padded length. */
  paddedTokens: number;
  /** Tokens drawn. */
  draws: number;
}

/** Effect of a result on a row: a finished step, no step yet, or an error of this row alone. */
export type Update = { row: Row; record: StepRecord | undefined } | { row: Row; error: Error };

/** Build the batch of rows that share a graph and a padded length. */
export function prepareBatch(unordered: readonly Row[]): PreparedBatch {
  const { graph } = unordered[0]!;
  const rows = graph === "score" ? unordered : drawOrder(unordered);
  const build = { denoise: denoiseInput, tilt: tiltInput, score: scoreInput }[graph];
  const input = build(rows) as PreparedBatch["input"];
  const draws = "uniform" in input ? input.uniform.length : 0;
  return { graph, rows, input, paddedTokens: input.rows * input.padded, draws };
}

/** Apply a result to the rows whose request has not ended. An error of one row does not affect the others. */
export function update({ rows, input }: PreparedBatch, result: Graphs[GraphName]["result"]): Update[] {
  const parts =
    "token" in result && "uniform" in input
      ? splitDraws(rows, input, result)
      : splitRewards(rows, result as Graphs["score"]["result"]);
  return rows.flatMap((row, i): Update[] => {
    if (row.group.ended) return [];
    try {
      return [{ row, record: row.apply(parts[i]!) }];
    } catch (error) {
      // Not finite numbers, or ids outside the vocabulary.
      return [{ row, error: error as Error }];
    }
  });
}
