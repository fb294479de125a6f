/** A peer without a server: so many rows at a time, round after round. */

import type { Job, Taken } from "../side.ts";

/** What such a peer is asked for. */
export interface LoopJob {
  rows: number;
  rounds: number;
  length: number;
  steps: number;
}

/** Runs a closed loop as a loop of batches: `seconds` takes a job and says how long it took. */
export async function runLoop(
  { cell, amount, recorder }: Job,
  seconds: (job: LoopJob) => Promise<number>,
): Promise<Taken> {
  const { length, steps } = cell.shapes[0]!;
  if (cell.load.kind !== "closed" || !("rounds" in amount) || steps === undefined)
    throw new TypeError("a loop has rows, rounds and steps");
  const job = { rows: cell.load.clients, rounds: amount.rounds, length, steps };
  const taken = await seconds(job);
  recorder.batch(job.rows * job.rounds, job.rows * job.rounds * length);
  return { seconds: taken };
}
