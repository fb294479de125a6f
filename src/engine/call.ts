/** One call of a graph: what rows share it, and what each takes of its answer. */

import type { StepRecord } from "../diffusion/sampler.ts";
import type { RuntimePool } from "../runtime/pool.ts";
import type { Canvases, GraphName } from "../runtime/protocol.ts";
import { denoiseBatch, drawOrder, scoreBatch, splitDraws, splitRewards, tiltBatch } from "./batch.ts";
import type { Row } from "./row.ts";

/** What came of a call. */
export interface Called {
  graph: GraphName;
  /** Canvases in the call. */
  rows: number;
  /** Canvases times padded length. */
  paddedTokens: number;
  /** Positions drawn. */
  draws: number;
  /** Milliseconds the graph ran. */
  milliseconds: number;
  /** For each row, in the order given, what takes its part: a finished step, or nothing yet; throws the row's own error. */
  outcomes: (() => StepRecord | undefined)[];
}

/** Rows of one call in the order in which its answer comes. */
export function callOrder<Job>(rows: readonly Row<Job>[]): Row<Job>[] {
  return rows[0]!.graph === "score" ? [...rows] : drawOrder(rows);
}

/** Runs the graph that these rows, in `callOrder`, share. Rejects with RuntimeFailure as `RuntimePool.run` does. */
export async function call<Job>(
  runtime: RuntimePool,
  rows: readonly Row<Job>[],
  attempts?: number,
): Promise<Called> {
  const { graph } = rows[0]!;
  if (graph === "score") {
    const batch = scoreBatch(rows);
    const result = await runtime.run(graph, batch, attempts);
    const rewards = splitRewards(rows, result);
    return {
      ...workOf(graph, batch, 0, result.milliseconds),
      outcomes: rows.map((row, i) => () => row.takeRewards(orThrow(rewards[i]!))),
    };
  }
  const batch = graph === "tilt" ? tiltBatch(rows) : denoiseBatch(rows);
  const result = await runtime.run(graph, batch, attempts);
  const drawn = splitDraws(rows, batch, result);
  return {
    ...workOf(graph, batch, batch.draws.length, result.milliseconds),
    outcomes: rows.map((row, i) => () => row.takeDraws(orThrow(drawn[i]!))),
  };
}

const workOf = (graph: GraphName, { rows, padded }: Canvases, draws: number, milliseconds: number) => ({
  ...{ graph, rows, draws, milliseconds },
  paddedTokens: rows * padded,
});

function orThrow<T>(value: T | Error): T {
  if (value instanceof Error) throw value;
  return value;
}
