import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { denoiseInput } from "../../../src/engine/scheduling/batch.ts";
import type { DenoiseInput } from "../../../src/runtime/protocol.ts";
import { plain, rowsOf, startPool } from "../rows.ts";

const { model, pool } = await startPool();

test("a batch that ends every worker fails, and the next one runs", {
  timeout: 120_000,
}, async () => {
  const [row] = rowsOf(model, 1, 256);
  const batch = denoiseInput([row!]);
  // Long enough to be running whenever the worker is killed.
  const slow: DenoiseInput = {
    ...batch,
    rows: 256,
    tokens: new Int32Array(256 * 256),
    length: new Int32Array(256).fill(256),
    sigma: new Float32Array(256),
    maskBias: new Float32Array(256),
  };
  const pass = pool.run("denoise", slow, 2);
  const behind = pool.run("denoise", batch, 1);
  const chase = setInterval(() => {
    try {
      // A worker that is still loading runs no batch.
      if (pool.healthy > 0) process.kill(pool.pids[0]!, "SIGKILL");
    } catch {
      // Already dead.
    }
  }, 1500);
  await assert.rejects(pass, /ended 2 worker processes/).finally(() => clearInterval(chase));
  assert.ok((await behind).token.length > 0);
});

test("a worker that hangs is replaced, busy or idle", { timeout: 120_000 }, async () => {
  const batch = denoiseInput(rowsOf(model, 2));
  const expected = plain(await pool.run("denoise", batch));
  let restarts = 0;
  pool.on("restart", () => restarts++);
  process.kill(pool.pids[0]!, "SIGSTOP");
  assert.deepEqual(plain(await pool.run("denoise", batch)), expected);
  assert.equal(restarts, 1);
  const stopped = pool.pids[0]!;
  process.kill(stopped, "SIGSTOP");
  // An idle worker is pinged after a while, and replaced if it does not answer.
  while (pool.pids[0] === stopped) await sleep(100);
  assert.deepEqual(plain(await pool.run("denoise", batch)), expected);
});
