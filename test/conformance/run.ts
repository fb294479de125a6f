/** Runs the cases of one model: each alone, then in its company. Every trace has to be the same, bit for bit. */

import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { FIXTURES, startEngine } from "../support/engine.ts";
import { type Case, type Company, drawRound, ROUND } from "./cases.ts";

/** A case that was run. */
export interface Run extends Case {
  model: string;
  /** Number of its round. */
  round: number;
  company: Company;
  same: boolean;
}

/** What came of the cases of a model. */
export interface Outcome {
  runs: Run[];
  /** Workers that were killed. */
  kills: number;
}

/** Padded tokens of a call: less than a round has, so that its rows do not always share one. */
const LIMITS = { maxBatchTokens: 512 };

/** The seed of a model's rounds: models do not share their cases. */
export const seedOf = (seed: number, model: number) => seed * FIXTURES.length + model;

/** All that a client can see of an answer, but ids and times. */
async function traceOf(engine: Engine, request: GenerateRequest): Promise<string> {
  const { samples, trace, usage, receipt } = await engine.submit({ ...request, trace: true }).result;
  // Samples of one request go at their own pace: only the order within one is its own.
  const steps = trace!.toSorted((a, b) => a.sample - b.sample);
  return JSON.stringify([samples, steps, usage, receipt]);
}

async function inTurn(engine: Engine, requests: readonly GenerateRequest[]): Promise<string[]> {
  const traces: string[] = [];
  for (const request of requests) traces.push(await traceOf(engine, request));
  return traces;
}

const sideBySide = (engine: Engine, requests: readonly GenerateRequest[]): Promise<string[]> =>
  Promise.all(requests.map((request) => traceOf(engine, request)));

/** The same while a worker is killed after so many calls; `victim` in [0, 1) says which one. Returns the kills too. */
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
    const { pids } = engine.runtime;
    const pid = pids[Math.floor(victim * pids.length)];
    if (pid !== undefined && process.kill(pid, "SIGKILL")) kills++;
  };
  engine.on("batch", kill);
  try {
    return { traces: await sideBySide(engine, requests), kills };
  } finally {
    engine.off("batch", kill);
  }
}

/**
 * Run `rounds`, those of `seed`, on the model in `folder`. `progress` is told the cases of each round. Stop early, and
 * say what there was, when `signal` is aborted. Reject if a request fails.
 */
export async function conform(
  folder: string,
  seed: number,
  rounds: Iterable<number>,
  progress: (cases: number) => void = () => {},
  signal?: AbortSignal,
): Promise<Outcome> {
  const [one, two] = await Promise.all([startEngine(LIMITS, folder, 1), startEngine(LIMITS, folder, 2)]);
  const outcome: Outcome = { runs: [], kills: 0 };
  const { guidance, name } = one.model.manifest;
  try {
    for (const index of rounds) {
      if (signal?.aborted) break;
      const { company, cases, killAfter, victim } = drawRound(seed, index, guidance !== undefined);
      const requests = cases.map(({ request }) => request);
      const expected = await inTurn(one, requests);
      let seen: string[];
      if (company === "alone, 2 workers") seen = await inTurn(two, requests);
      else if (company === "8 others, 1 worker") seen = await sideBySide(one, requests);
      else if (company === "8 others, 2 workers") seen = await sideBySide(two, requests);
      else {
        const { traces, kills } = await underKill(two, requests, killAfter, victim);
        seen = traces;
        outcome.kills += kills;
      }
      for (const [i, one] of cases.entries())
        outcome.runs.push({ ...one, model: name, round: index, company, same: seen[i] === expected[i] });
      progress(ROUND);
    }
    return outcome;
  } finally {
    await Promise.all([one.runtime.close(), two.runtime.close()]);
  }
}
