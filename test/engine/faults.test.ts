/** Requests survive the death of workers. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { ModelFailure } from "../../src/errors.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import type { GraphName, Graphs } from "../../src/runtime/protocol.ts";
import { startEngine } from "../support/engine.ts";

const requests = Array.from(
  { length: 10 },
  (_, i): GenerateRequest => ({
    prompt: "Once upon a time",
    length: 40 + (i % 3),
    steps: 6,
    seed: 500 + i,
    temperature: 1,
  }),
);

test("a row that makes its batches fail is isolated, and the others have the same tokens", async () => {
  const engine = await startEngine();
  const expected = await Promise.all(
    requests.map(async (request) => (await engine.submit(request).result).samples),
  );
  const guilty = "a guilty prompt";
  const marked = engine.model.tokenizer.encode(guilty, 256)!;
  const run = engine.pool.run.bind(engine.pool);
  // Every batch with the faulty prompt fails as a whole: it reads a position that does not exist.
  engine.pool.run = <G extends GraphName>(graph: G, batch: Graphs[G]["input"]) => {
    const holds = Array.from({ length: batch.rows }, (_, row) => row * batch.padded).some((start) =>
      marked.every((id, i) => batch.tokens[start + i] === id),
    );
    return run(graph, holds ? { ...batch, picks: Int32Array.of(999, 0), draws: Int32Array.of(0) } : batch);
  };
  const doomed = engine.submit({ ...requests[0]!, prompt: guilty, length: 40 });
  const others = requests.map((request) => engine.submit(request).result);
  await assert.rejects(doomed.result, ModelFailure);
  assert.deepEqual(
    (await Promise.all(others)).map(({ samples }) => samples),
    expected,
  );
});

test("several workers give the same bits as one, even if one dies", async () => {
  const [one, three] = await Promise.all([startEngine(), startEngine({ maxBatchTokens: 128 }, undefined, 3)]);
  assert.equal(three.pool.size, 3);
  const ask = (engine: typeof one) =>
    Promise.all(requests.map(async (request) => (await engine.submit(request).result).receipt.trace_sha256));
  const expected = await ask(one);
  assert.deepEqual(await ask(three), expected);
  let batches = 0;
  let kills = 0;
  three.on("batch", () => {
    if (batches++ % 9 !== 0) return;
    try {
      process.kill(three.pool.pids[kills % 3]!, "SIGKILL");
      kills++;
    } catch {
      // Already killed, but not yet replaced: the next batch kills another one.
      batches--;
    }
  });
  assert.deepEqual(await ask(three), expected);
  assert.ok(batches > 9 && kills > 1);
});

test("if one of several workers cannot start, all are ended", async () => {
  const graphs = { denoise: "/no/such/graph.onnx" };
  await assert.rejects(
    WorkerPool.start({ graphs: { cpu: graphs, cuda: graphs }, device: "cpu", threads: 1 }, 2),
  );
});
