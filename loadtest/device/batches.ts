/** Batches with which a device is checked: those of real samples, and rows that differ from each other. */

import { denoiseInput, scoreInput, tiltInput } from "../../src/engine/scheduling/batch.ts";
import type { Model } from "../../src/model/model.ts";
import type { WorkerPool } from "../../src/runtime/pool.ts";
import type { Batch, GraphName, Graphs } from "../../src/runtime/protocol.ts";
import { HalfWay } from "../bench/graphs.ts";
import { runLoop } from "../bench/loop.ts";

export type Result = Graphs[GraphName]["result"];

/** A batch with the result of the CPU. */
export interface Recorded {
  batch: Batch;
  result: Result;
}

/** Return a pool as what `runLoop` runs graphs on. */
export const loopOn = (pool: Pick<WorkerPool, "run">) => ({
  run: (batch: Batch): Promise<Result> => pool.run(batch.graph, batch.input as never),
});

/** Return canvases whose first half is revealed, each with other tokens; every row draws a sixteenth. */
export function rowsOf(model: Model, length: number, count: number, kind: "plain" | "tilt" = "plain") {
  const canvas = new HalfWay(model, length);
  const positions = canvas.due(Math.ceil(length / 16));
  return Array.from({ length: count }, (_, i) => {
    const row = canvas.row(kind, positions);
    const tokens = row.sample.canvas.tokens.map((token, at) =>
      at < length / 2 ? (31 * i + 17 * at + 5) % (model.manifest.vocab_size - 1) : token,
    );
    return { ...row, sample: { ...row.sample, canvas: { tokens } } };
  });
}

/** Return a `denoise` batch of rows. */
export const plainBatch = (rows: ReturnType<typeof rowsOf>): Batch => ({
  graph: "denoise",
  input: denoiseInput(rows),
});

/** Return a `tilt` batch and a `score` batch of rows. */
export function guidedBatches(model: Model, length: number, count: number): [tilt: Batch, score: Batch] {
  const rows = rowsOf(model, length, count, "tilt");
  const scored = rows.map(({ padded, plan, sample }) => ({
    padded,
    plan,
    sample: { params: { steps: 2 }, schedule: sample.schedule },
    canvases: [sample.canvas.tokens],
  }));
  return [
    { graph: "tilt", input: tiltInput(rows) },
    { graph: "score", input: scoreInput(scored) },
  ];
}

/** Run samples on the CPU, and the guided graphs if there are any. Return every batch with its result. */
export async function record(
  model: Model,
  pool: Pick<WorkerPool, "run">,
  { rows, length, steps }: { rows: number; length: number; steps: number },
): Promise<Recorded[]> {
  const recorded: Recorded[] = [];
  const { run } = loopOn(pool);
  const watched = async (batch: Batch) => {
    const result = await run(batch);
    recorded.push({ batch, result });
    return result;
  };
  const keys = Array.from({ length: rows }, (_, seed) => ({ seed, sample: 0 }));
  await runLoop(model, { run: watched }, { keys, length, steps });
  if (model.graphs.cpu.tilt) for (const batch of guidedBatches(model, length, rows)) await watched(batch);
  return recorded;
}
