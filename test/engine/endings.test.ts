/** How requests end: answered, cancelled, failed or refused at the end of the server. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import type { Ending } from "../../src/engine/subscriber.ts";
import { CancelledError, ModelFailure, UnavailableError } from "../../src/errors.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";

const REQUEST = { prompt: "", length: 16, steps: 8, seed: 1 };

/** Return an engine and the endings of its requests so far. */
async function engineWithEndings() {
  const engine = await startEngine({ cache: { maxBytes: 1e6, ttlMs: 60_000 } }, TINY_GUIDED);
  const endings: Ending[] = [];
  engine.on("finished", (ending) => endings.push(ending));
  return { engine, endings, outcomes: () => endings.map(({ outcome }) => outcome) };
}

test("each request ends once, as done with its answer, or as cancelled", async () => {
  const { engine, endings, outcomes } = await engineWithEndings();
  const done = engine.submit(REQUEST);
  const answer = await done.result;
  assert.deepEqual(endings, [{ outcome: "done", result: answer }]);
  const cancelled = engine.submit({ ...REQUEST, seed: 2 });
  cancelled.cancel();
  cancelled.cancel();
  await assert.rejects(cancelled.result, CancelledError);
  // From the cache: the answer is on its way, and is cancelled before it is sent.
  const cached = engine.submit(REQUEST);
  cached.cancel();
  await assert.rejects(cached.result, CancelledError);
  done.cancel();
  assert.deepEqual(outcomes(), ["done", "cancelled", "cancelled"]);
});

test("an error of the model rejects every request that waits for the same samples", async () => {
  const { engine, outcomes } = await engineWithEndings();
  const { pool } = engine;
  const run = pool.run;
  pool.run = () => Promise.reject(new ModelFailure("as a graph that cannot run"));
  const handles = [engine.submit(REQUEST), engine.submit(REQUEST)];
  for (const { result } of handles) await assert.rejects(result, ModelFailure);
  assert.deepEqual(outcomes(), ["failed", "failed"]);
  // The request that failed is joined by no later one.
  pool.run = run;
  assert.equal((await engine.submit(REQUEST).result).cache, "miss");
  assert.equal(engine.activeRows, 0);
});

test("an abort rejects running, waiting and cached requests, and refuses later ones", async () => {
  const { engine, outcomes } = await engineWithEndings();
  await engine.submit(REQUEST).result;
  const running = engine.submit({ ...REQUEST, seed: 3, length: 90, steps: 90 });
  await once(engine, "batch");
  const waiting = engine.submit({ ...REQUEST, seed: 4 });
  // Its answer is known, and is on its way.
  const cached = engine.submit(REQUEST);
  engine.abort();
  for (const { result } of [running, waiting, cached])
    await assert.rejects(
      result,
      (error) => error instanceof UnavailableError && /shutting/.test(error.message),
    );
  assert.deepEqual(outcomes(), ["done", "failed", "failed", "failed"]);
  assert.deepEqual([engine.activeRows, engine.queueLength], [0, 0]);
  assert.throws(() => engine.submit(REQUEST), UnavailableError);
  await engine.drain();
});
