/**
 * Run requests while workers are killed at random; their traces must equal those without kills.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { uniformsAt } from "../../src/diffusion/philox.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { openEngine, TINY_GUIDED } from "../support/engine.ts";

/** Result of a run under kills. */
export interface KillReport {
  kills: number;
  /** Requests answered during the kills. */
  answers: number;
  /** Requests whose trace differs from the one without kills. */
  different: number;
  seconds: number;
}

/** Concurrent requests. */
const CLIENTS = 6;

/** Plain, by confidence, tilted and re-ranked requests of several lengths and budgets. */
const REQUESTS = Array.from({ length: 24 }, (_, i): GenerateRequest => {
  const base = { prompt: "", length: 20 + 7 * (i % 4), steps: 4 + 5 * (i % 5), seed: i, temperature: 1 };
  if (i % 4 === 1) return { ...base, order: "confidence" };
  if (i % 4 >= 2) return { ...base, guidance: { mode: "rgas", rerank_ratio: i % 4 === 2 ? 0.5 : 1 } };
  return base;
});

const traceOf = async (engine: Engine, request: GenerateRequest) =>
  (await engine.submit(request).result).receipt.trace_sha256;

/**
 * Keep an engine busy until `kills` of its two workers were killed, at random moments of `seed`, or until
 * `signal` is aborted. Each worker divides its batches into `parts`. Call `progress` after each kill. Reject
 * if a request fails.
 */
export async function underKills(
  kills: number,
  seed: number,
  progress: (done: number) => void = () => {},
  signal?: AbortSignal,
  parts = 1,
): Promise<KillReport> {
  const split = parts > 1 ? { parts, threads: 1 } : undefined;
  const engine = await openEngine({ maxBatchTokens: 192 }, TINY_GUIDED, 2, split);
  const started = performance.now();
  let over = false;
  try {
    const expected: string[] = [];
    for (const request of REQUESTS) expected.push(await traceOf(engine, request));
    const report: KillReport = { kills: 0, answers: 0, different: 0, seconds: 0 };
    const client = async (first: number) => {
      for (let i = first; !over; i += CLIENTS) {
        const index = i % REQUESTS.length;
        report.answers++;
        if ((await traceOf(engine, REQUESTS[index]!)) !== expected[index]) report.different++;
      }
    };
    const killer = async () => {
      while (report.kills < kills && !over && !signal?.aborted) {
        const { draw, reveal } = uniformsAt({ seed, sample: 0, step: report.kills, candidate: 0 }, 0);
        await sleep(600 * draw);
        const { pids } = engine.pool;
        const pid = pids[Math.floor(reveal * pids.length)];
        if (pid === undefined) continue;
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          continue; // It is being replaced.
        }
        progress(++report.kills);
      }
    };
    const clients = Promise.all(Array.from({ length: CLIENTS }, (_, i) => client(i)));
    await Promise.race([killer(), clients]);
    over = true;
    await clients;
    report.seconds = (performance.now() - started) / 1000;
    return report;
  } finally {
    over = true;
    await engine.pool.close();
  }
}
