/** From rows to a batch for the model, and from its result back to the rows. */

import type { StepRecord } from "../../diffusion/sampler.ts";
import type { GraphName, Graphs } from "../../runtime/protocol.ts";
import { denoiseBatch, drawOrder, scoreBatch, splitDraws, splitRewards, tiltBatch } from "./batch.ts";
import type { Row } from "./row.ts";

/** A batch that is ready to run. */
export interface PreparedBatch {
  graph: GraphName;
  /** In the order in which its result comes. */
  rows: readonly Row[];
  input: Graphs[GraphName]["input"];
  /** Canvases times padded length. */
  paddedTokens: number;
  /** Positions drawn. */
  draws: number;
}

/** What a result came to for a row: a finished step, nothing yet, or its own error. */
export type Update = { row: Row; record: StepRecord | undefined } | { row: Row; error: Error };

/** Lay out the batch of these rows, which share a graph and a padded length. */
export function prepareBatch(together: readonly Row[]): PreparedBatch {
  const { graph } = together[0]!;
  const rows = graph === "score" ? together : drawOrder(together);
  const input = inputOf(graph, rows);
  const draws = "uniform" in input ? input.uniform.length : 0;
  return { graph, rows, input, paddedTokens: input.rows * input.padded, draws };
}

function inputOf(graph: GraphName, rows: readonly Row[]): PreparedBatch["input"] {
  if (graph === "score") return scoreBatch(rows);
  return graph === "tilt" ? tiltBatch(rows) : denoiseBatch(rows);
}

/** Apply a result to rows whose request is not over. The error of one does not affect the others. */
export function update({ rows, input }: PreparedBatch, result: Graphs[GraphName]["result"]): Update[] {
  const parts =
    "token" in result && "uniform" in input
      ? splitDraws(rows, input, result)
      : splitRewards(rows, result as Graphs["score"]["result"]);
  const updates: Update[] = [];
  for (const [i, row] of rows.entries()) {
    if (row.group.over) continue;
    try {
      updates.push({ row, record: row.take(parts[i]!) });
    } catch (error) {
      // Such as numbers that are not finite, or a graph that draws ids outside the vocabulary.
      updates.push({ row, error: error as Error });
    }
  }
  return updates;
}
