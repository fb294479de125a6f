/** Tokens a second by rows and step budget, and the time of guided steps. */

import type { Model } from "../../src/model/model.ts";
import type { WorkerPool } from "../../src/runtime/pool.ts";
import type { Batch } from "../../src/runtime/protocol.ts";
import { runLoop } from "../bench/loop.ts";
import { median } from "../traffic/statistics.ts";
import type { Found } from "./agreement.ts";
import { guidedBatches, loopOn, plainBatch, rowsOf } from "./batches.ts";

/** Seconds of samples of one length. */
export type Side = (rows: number, steps: number) => Promise<number>;

/** Seconds for which a cell is repeated, and repeats at most. */
const [CELL_SECONDS, REPEATS] = [0.3, 3];

/** Return the side of a worker. */
export const workerSide =
  (model: Model, pool: Pick<WorkerPool, "run">, length: number): Side =>
  async (rows, steps) => {
    const keys = Array.from({ length: rows }, (_, seed) => ({ seed, sample: 0 }));
    const started = performance.now();
    await runLoop(model, loopOn(pool), { keys, length, steps });
    return (performance.now() - started) / 1000;
  };

/**
 * Return tokens a second for each step budget, in rising order. A cell that would take longer than
 * `mostSeconds`, by the cells before it, is null.
 */
export async function tokensPerSecond(
  side: Side,
  rows: number,
  length: number,
  steps: readonly number[],
  mostSeconds: number,
): Promise<(number | null)[]> {
  // The first passes of a size allocate memory and choose kernels.
  let perStep = (await side(rows, 1)) / 2;
  const cells: (number | null)[] = [];
  for (const budget of steps) {
    if (perStep * budget > mostSeconds) {
      cells.push(null);
      continue;
    }
    const times: number[] = [];
    while (times.length < REPEATS && times.reduce((sum, time) => sum + time, 0) < CELL_SECONDS)
      times.push(await side(rows, budget));
    const seconds = median(times);
    perStep = seconds / budget;
    cells.push((rows * length) / seconds);
  }
  return cells;
}

/** Return the milliseconds of a plain, a tilted and a re-ranked step with 4 candidates. */
export async function guidedSteps(
  model: Model,
  pool: Pick<WorkerPool, "run">,
  length: number,
  rows: number,
): Promise<Found> {
  const { run } = loopOn(pool);
  const plain = plainBatch(rowsOf(model, length, rows));
  const [tilt] = guidedBatches(model, length, rows);
  const [, score] = guidedBatches(model, length, 4 * rows);
  const time = async (...batches: Batch[]) => {
    const times: number[] = [];
    for (let i = 0; i <= REPEATS; i++) {
      const started = performance.now();
      for (const batch of batches) await run(batch);
      times.push(performance.now() - started);
    }
    return median(times.slice(1));
  };
  const figures = { plain: await time(plain), tilted: await time(tilt), reranked: await time(plain, score) };
  const ms = Object.entries(figures).map(([name, value]) => `${name} ${value.toFixed(1)} ms`);
  return { found: `a step of ${rows} ${rows === 1 ? "row" : "rows"}: ${ms.join(", ")}`, figures };
}
