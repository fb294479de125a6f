import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { uniformsAt } from "../../src/diffusion/philox.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { openEngine, TINY_GUIDED } from "../support/engine.ts";

const KILLS = 50;
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

test("50 random kills of workers lose nothing and change no bit", async () => {
  const engine = await openEngine({ maxBatchTokens: 192 }, TINY_GUIDED, 2);
  let [kills, answers, over] = [0, 0, false];
  try {
    const expected: string[] = [];
    for (const request of REQUESTS) expected.push(await traceOf(engine, request));
    const client = async (first: number) => {
      for (let i = first; !over; i += CLIENTS) {
        const index = i % REQUESTS.length;
        assert.equal(await traceOf(engine, REQUESTS[index]!), expected[index]);
        answers++;
      }
    };
    const killer = async () => {
      while (kills < KILLS && !over) {
        const { draw, reveal } = uniformsAt({ seed: 1, sample: 0, step: kills, candidate: 0 }, 0);
        await sleep(600 * draw);
        const { pids } = engine.pool;
        const pid = pids[Math.floor(reveal * pids.length)];
        if (pid === undefined) continue;
        try {
          process.kill(pid, "SIGKILL");
        } catch {
          continue; // It is being replaced.
        }
        kills++;
      }
    };
    const clients = Promise.all(Array.from({ length: CLIENTS }, (_, i) => client(i)));
    await Promise.race([killer(), clients]);
    over = true;
    await clients;
    assert.equal(kills, KILLS);
    assert.ok(answers > KILLS, `${answers} answers`);
  } finally {
    over = true;
    await engine.pool.close();
  }
});
