import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { denoiseInput } from "../../src/engine/scheduling/batch.ts";
import { ModelFailure, StartupError } from "../../src/errors.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import type { DenoiseInput } from "../../src/runtime/protocol.ts";
import { Worker } from "../../src/runtime/worker-process.ts";
import { openEngine, TINY_GUIDED } from "../support/engine.ts";
import { hideGpus } from "../support/fake-cuda.ts";
import { plain, rowsOf, startPool } from "./rows.ts";

const { model, pool } = await startPool();

test("a row has the same bits alone and beside other rows", async () => {
  const all = rowsOf(model, 8);
  const together = plain(await pool.run("denoise", denoiseInput(all)));
  let start = 0;
  for (const row of all) {
    const end = start + row.plan.candidates[0]!.positions.length;
    const alone = plain(await pool.run("denoise", denoiseInput([row])));
    assert.deepEqual(alone.token, together.token.slice(start, end));
    assert.deepEqual(alone.logprob, together.logprob.slice(start, end));
    assert.deepEqual(alone.entropy, together.entropy.slice(start, end));
    start = end;
  }
});

test("the entropy is the mean negative log-probability of the drawn tokens", async () => {
  // One position is drawn many times, with uniforms spread evenly over [0, 1).
  const count = 4096;
  const [row] = rowsOf(model, 1);
  const { token, logprob, entropy } = await pool.run("denoise", {
    ...denoiseInput([row!]),
    picks: Int32Array.of(0, row!.plan.candidates[0]!.positions[0]!),
    draws: new Int32Array(count),
    uniform: Float32Array.from({ length: count }, (_, i) => (i + 0.5) / count),
    temperature: new Float32Array(count).fill(1),
    topK: new Int32Array(count),
    topP: new Float32Array(count).fill(1),
  });
  const surprise = logprob.reduce((sum, value) => sum - value, 0) / count;
  assert.ok(entropy[0]! > 1, "the position is all but certain, so this test shows nothing");
  assert.ok(Math.abs(surprise - entropy[0]!) < 0.02 * entropy[0]!, `${surprise}, not ${entropy[0]}`);
  // Each token is drawn in proportion to its probability, to within rounding.
  const drawn = new Map<number, { times: number; probability: number }>();
  for (const [i, id] of token.entries())
    drawn.set(id, { times: (drawn.get(id)?.times ?? 0) + 1, probability: Math.exp(logprob[i]!) });
  for (const { times, probability } of drawn.values())
    assert.ok(Math.abs(times - count * probability) <= 1.5, `${times} of ${count}, not ${probability}`);
});

test("a graph error is a ModelFailure, and the worker continues", async () => {
  const bad: DenoiseInput = {
    ...denoiseInput(rowsOf(model, 1)),
    picks: Int32Array.of(7, 7),
    draws: Int32Array.of(0),
  };
  await assert.rejects(pool.run("denoise", bad), ModelFailure);
  assert.equal(
    (await pool.run("denoise", denoiseInput(rowsOf(model, 1)))).token.length,
    rowsOf(model, 1)[0]!.plan.candidates[0]!.positions.length,
  );
});

test("a batch whose worker is killed runs again, with the same bits", async () => {
  const batch = denoiseInput(rowsOf(model, 8));
  const expected = plain(await pool.run("denoise", batch));
  let restarts = 0;
  pool.on("restart", () => restarts++);
  const passes = Array.from({ length: 3 }, () => pool.run("denoise", batch));
  process.kill(pool.pids[0]!, "SIGKILL");
  for (const pass of passes) assert.deepEqual(plain(await pass), expected);
  assert.equal(restarts, 1);
});

test("a worker does not start with a file that is not a graph", async () => {
  const path = join(tmpdir(), `not-a-graph-${process.pid}.onnx`);
  await writeFile(path, "not a graph");
  await assert.rejects(
    WorkerPool.start({
      graphs: { cpu: { denoise: path }, cuda: { denoise: path } },
      device: "cpu",
      threads: 1,
    }),
    StartupError,
  );
});

test("if one of several workers cannot start, all are ended", async () => {
  const graphs = { denoise: "/no/such/graph.onnx" };
  await assert.rejects(
    WorkerPool.start({ graphs: { cpu: graphs, cuda: graphs }, device: "cpu", threads: 1 }, 2),
  );
});

test("a worker does not start on CUDA without a visible GPU", async () => {
  hideGpus();
  await assert.rejects(
    WorkerPool.start({ graphs: model.graphs, device: "cuda", threads: 1 }),
    (error) => error instanceof StartupError && /--device cpu/.test(error.message),
  );
});

test("when an engine is ready, every worker has run every graph, denoise in all its sessions", async () => {
  const ran = new Map<Worker, Set<string>>();
  const { run } = Worker.prototype;
  Worker.prototype.run = function (call, limitMs, everywhere) {
    const graph = `${call.graph}${everywhere ? " everywhere" : ""}`;
    ran.set(this, (ran.get(this) ?? new Set()).add(graph));
    return run.call(this, call, limitMs, everywhere);
  };
  try {
    const engine = await openEngine({}, TINY_GUIDED, 3);
    await engine.pool.close();
  } finally {
    Worker.prototype.run = run;
  }
  assert.deepEqual(
    [...ran.values()].map((graphs) =>
      ["denoise everywhere", "score", "tilt"].every((graph) => graphs.has(graph)),
    ),
    [true, true, true],
  );
});
