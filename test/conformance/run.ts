/**
 * Run the cases of one model alone and then beside others. Both traces must be equal, bit for bit.
 */

import assert from "node:assert/strict";
import { basename } from "node:path";
import { test } from "node:test";
import { submitChosen } from "../../src/cli/start-engine.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { dotProducts } from "../../src/model/precision.ts";
import { FIXTURES, openEngine, TINY_STUDENT } from "../support/engine.ts";
import { type Case, type Company, drawRound, ROUND } from "./cases.ts";

/** A finished case. */
export interface Run extends Case {
  model: string;
  /** Number of its round. */
  round: number;
  company: Company;
  same: boolean;
}

/** Result of the cases of a model. */
export interface Outcome {
  runs: Run[];
  /** Workers that were killed. */
  kills: number;
}

/** Padded tokens of a batch: fewer than a round has, so that its rows do not always share one. */
const LIMITS = { maxBatchTokens: 512 };

/** A model folder, and the precision of the graphs to run. */
export interface Subject {
  folder: string;
  precision: "fp32" | "int8";
}

const INT8: Subject = { folder: TINY_STUDENT, precision: "int8" };

/** Every converted checkpoint in float32, and one in int8 where the processor has 8-bit dot products. */
export const SUBJECTS: readonly Subject[] = [
  ...FIXTURES.map((folder): Subject => ({ folder, precision: "fp32" })),
  ...(dotProducts() === undefined ? [] : [INT8]),
];

/** Return the seed of the rounds of subject number `index`, so that subjects share no cases. */
export const seedOf = (seed: number, index: number) => seed * SUBJECTS.length + index;

/** Return what a client can see of an answer, without ids and times. */
async function traceOf(engine: Engine, request: GenerateRequest): Promise<string> {
  const { samples, trace, usage, receipt, choices, combinations } = await submitChosen(engine, {
    ...request,
    trace: true,
  });
  // Samples of a request progress independently, so only the order within a sample is fixed.
  const steps = trace!.toSorted((a, b) => a.sample - b.sample);
  return JSON.stringify([samples, steps, usage, receipt, choices, combinations]);
}

async function inTurn(engine: Engine, requests: readonly GenerateRequest[]): Promise<string[]> {
  const traces: string[] = [];
  for (const request of requests) traces.push(await traceOf(engine, request));
  return traces;
}

const inParallel = (engine: Engine, requests: readonly GenerateRequest[]): Promise<string[]> =>
  Promise.all(requests.map((request) => traceOf(engine, request)));

/**
 * The same, while a worker is killed after some batches; `victim` in [0, 1) selects it. Return the number of
 * kills too.
 */
async function underKill(
  engine: Engine,
  requests: readonly GenerateRequest[],
  killAfter: number,
  victim: number,
): Promise<{ traces: string[]; kills: number }> {
  let calls = 0;
  let kills = 0;
  const kill = () => {
    if (++calls !== killAfter) return;
    const { pids } = engine.pool;
    const pid = pids[Math.floor(victim * pids.length)];
    if (pid !== undefined && process.kill(pid, "SIGKILL")) kills++;
  };
  engine.on("batch", kill);
  try {
    return { traces: await inParallel(engine, requests), kills };
  } finally {
    engine.off("batch", kill);
  }
}

/**
 * Run `rounds` of `seed` on `subject`. Call `progress` with the number of cases after each round. When
 * `signal` is aborted, stop and return the rounds that are complete. Reject if a request fails.
 */
export async function conform(
  { folder, precision }: Subject,
  seed: number,
  rounds: Iterable<number>,
  progress: (cases: number) => void = () => {},
  signal?: AbortSignal,
): Promise<Outcome> {
  const [one, two] = (await Promise.all(
    [1, 2].map((workers) => openEngine(LIMITS, folder, workers, undefined, precision)),
  )) as [Engine, Engine];
  const outcome: Outcome = { runs: [], kills: 0 };
  const { guidance } = one.model.manifest;
  const model = `${one.model.manifest.name} ${precision}`;
  try {
    for (const index of rounds) {
      if (signal?.aborted) break;
      const { company, cases, killAfter, victim } = drawRound(seed, index, guidance !== undefined);
      const requests = cases.map(({ request }) => request);
      const expected = await inTurn(one, requests);
      let seen: string[];
      if (company === "alone, 2 workers") seen = await inTurn(two, requests);
      else if (company === "8 others, 1 worker") seen = await inParallel(one, requests);
      else if (company === "8 others, 2 workers") seen = await inParallel(two, requests);
      else {
        const { traces, kills } = await underKill(two, requests, killAfter, victim);
        seen = traces;
        outcome.kills += kills;
      }
      for (const [i, one] of cases.entries())
        outcome.runs.push({ ...one, model, round: index, company, same: seen[i] === expected[i] });
      progress(ROUND);
    }
    return outcome;
  } finally {
    await Promise.all([one.pool.close(), two.pool.close()]);
  }
}

/** Compare the cases of `rounds` rounds of each model, in a test for each. */
export function testRounds(rounds: number): void {
  // Finds differences on both models that keep the mask if rows with different budgets share a first pass.
  const seed = 7;
  for (const [m, subject] of SUBJECTS.entries())
    test(`every trace is the one alone: ${basename(subject.folder)} ${subject.precision}`, async () => {
      const { runs } = await conform(subject, seedOf(seed, m), Array(rounds).keys());
      assert.equal(runs.length, rounds * ROUND);
      assert.deepEqual(
        runs.filter(({ same }) => !same),
        [],
      );
    });
}
