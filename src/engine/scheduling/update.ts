/** Turn rows into a batch, and apply its result to the rows. */

import type { StepRecord } from "../../diffusion/step.ts";
import { type DenoiseInput, type GraphName, type Graphs, scores } from "../../runtime/protocol.ts";
import {
  denoiseInput,
  drawOrder,
  type RowDraws,
  scoreInput,
  splitDraws,
  splitRewards,
  tiltInput,
} from "./batch.ts";
import type { DrawPart, Row } from "./row.ts";

/** A batch that is ready to run. */
export interface PreparedBatch {
  graph: GraphName;
  rows: readonly Row[];
  /** What draws tokens, in the order of the result; a row with particles draws on several canvases. */
  drawn: readonly DrawPart[];
  input: Graphs[GraphName]["input"];
  /** Canvases times padded length. */
  paddedTokens: number;
  /** Tokens drawn. */
  draws: number;
}

/** Effect of a result on a row: a finished step, no step yet, or an error of this row alone. */
export type Update = { row: Row; record: StepRecord | undefined } | { row: Row; error: Error };

/** Build the batch of rows that share a graph and a padded length. */
export function prepareBatch(rows: readonly Row[]): PreparedBatch {
  const { graph } = rows[0]!;
  const drawn = scores(graph) ? [] : drawOrder(rows.flatMap((row) => row.drawn));
  const input = scores(graph) ? scoreInput(rows) : (graph === "tilt" ? tiltInput : denoiseInput)(drawn);
  const draws = "draws" in input ? (input as DenoiseInput).draws.length : 0;
  return { graph, rows, drawn, input, paddedTokens: input.rows * input.padded, draws };
}

/** Return what each row drew, of the draws of its canvases: an error if one of them is one. */
function joinParts(
  rows: readonly Row[],
  drawn: readonly DrawPart[],
  draws: readonly (RowDraws | Error)[],
): (RowDraws | Error)[] {
  const ofRow = new Map<Row, (RowDraws | Error)[]>(rows.map((row) => [row, []]));
  for (const [i, { owner }] of drawn.entries()) ofRow.get(owner)!.push(draws[i]!);
  return rows.map((row) => row.join(ofRow.get(row)!));
}

/** Apply a result to the rows whose request has not ended. An error of one row does not affect the others. */
export function update({ rows, drawn, input }: PreparedBatch, result: Graphs[GraphName]["result"]): Update[] {
  const parts =
    "token" in result && "uniform" in input
      ? joinParts(rows, drawn, splitDraws(drawn, input, result))
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
