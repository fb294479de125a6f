/** Answers when a step or an answer cannot be built, and when a worker cannot be replaced. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import { ModelRegistry } from "../../src/engine/models/registry.ts";
import { createMetrics } from "../../src/server/telemetry/metrics.ts";
import { damagedModel } from "../support/damage.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { scratch } from "../support/scratch.ts";
import { listen, StreamClient } from "./support.ts";

const root = scratch("failures");

const BODY = { prompt: "", length: 20, steps: 4, seed: 1 };
/** Longer than any answer takes, and shorter than the time limit of a test. */
const LIMIT_MS = 20_000;

const generate = (origin: string, body: object) =>
  post(`${origin}/generate`, body, {}, AbortSignal.timeout(LIMIT_MS));

/** Run `act` with a server over a small engine. */
async function served(
  work: (origin: string, engine: Engine) => Promise<void>,
  ...start: Parameters<typeof startEngine>
): Promise<void> {
  const engine = await startEngine(...start);
  const metrics = createMetrics(new ModelRegistry(engine));
  const { origin } = await listen(engine, { metrics });
  await work(origin, engine);
}

/** The samples of an answer. */
const samplesOf = async (response: Response | Promise<Response>) =>
  ((await (await response).json()) as { samples: unknown }).samples;

const broken = () => {
  throw new TypeError("a bug");
};

async function assertInternal(response: Response): Promise<void> {
  assert.equal(response.status, 500);
  const problem = (await response.json()) as { type: string; request_id: string };
  assert.match(problem.type, /internal$/);
  assert.equal(problem.request_id, response.headers.get("x-request-id"));
}

test("a request whose answer cannot be built fails with 500 and its id, and the next one is answered", () =>
  served(
    async (origin, { model }) => {
      const { tokenizer } = model;
      const { decode } = tokenizer;
      tokenizer.decode = broken;
      await assertInternal(await generate(origin, BODY));
      tokenizer.decode = decode;
      assert.equal((await generate(origin, BODY)).status, 200);
      // An event of the samples, before the answers to the requests that share them.
      const { sha256 } = model;
      Object.assign(model, { sha256: undefined });
      await assertInternal(await generate(origin, { ...BODY, seed: 2 }));
      Object.assign(model, { sha256 });
      assert.equal((await generate(origin, { ...BODY, seed: 2 })).status, 200);
    },
    { cache: { maxBytes: 1e6, ttlMs: 60_000 } },
    TINY_GUIDED,
  ));

test("a cached answer or a step that cannot be built fails in the same way", () =>
  served(
    async (origin, { model }) => {
      const { tokenizer } = model;
      const { decode, tokenText } = tokenizer;
      assert.equal((await generate(origin, BODY)).status, 200);
      tokenizer.decode = broken;
      await assertInternal(await generate(origin, BODY));
      tokenizer.decode = decode;
      tokenizer.tokenText = broken;
      await assertInternal(await generate(origin, { ...BODY, seed: 3, trace: true }));
      const client = await StreamClient.connect(origin);
      client.send({ type: "generate", id: "a", ...BODY, seed: 4 });
      const { error } = await client.find((event) => event.type === "error");
      assert.equal(error.status, 500);
      assert.ok(error.request_id);
      tokenizer.tokenText = tokenText;
      client.socket.terminate();
      assert.equal((await generate(origin, { ...BODY, seed: 3, trace: true })).status, 200);
    },
    { cache: { maxBytes: 1e6, ttlMs: 60_000 } },
    TINY_GUIDED,
  ));

test("of requests that share their samples, only the one whose steps cannot be built fails", () =>
  served(
    async (_, engine) => {
      const request = { ...BODY, steps: 8 };
      const [sound, bad] = [engine.submit(request), engine.submit(request, broken)];
      await assert.rejects(bad.result, TypeError);
      const { cache, samples } = await sound.result;
      assert.deepEqual([cache, samples[0]!.tokens.length], ["miss", 20]);
      await engine.drain();
    },
    { cache: { maxBytes: 1e6, ttlMs: 60_000 } },
    TINY_GUIDED,
  ));

test("if a worker cannot be replaced, the other one answers everything in time", async () => {
  const folder = await damagedModel(join(root, "gone"), {});
  const graph = join(folder, "denoise.fp32.onnx");
  const metric = async (origin: string, name: string) =>
    Number(new RegExp(`^${name} (.*)$`, "m").exec(await (await fetch(`${origin}/metrics`)).text())![1]);
  await served(
    async (origin, { pool }) => {
      const ready = async () => (await fetch(`${origin}/readyz`)).status;
      const body = { ...BODY, length: 60, steps: 64 };
      const expected = await samplesOf(generate(origin, { ...body, seed: 0 }));
      assert.deepEqual([await ready(), await metric(origin, "didi_healthy_workers")], [200, 2]);
      await rename(graph, `${graph}.gone`);
      // Both have a batch, and each batch holds one row, when the process ends.
      const answers = [0, 1, 2, 3, 4, 5].map((seed) =>
        generate(origin, { ...body, seed, ...(seed > 0 && { deadline_ms: 3000 }) }),
      );
      const failing = once(pool, "load-failed");
      const { pids } = pool;
      await new Promise<void>((resolve) => {
        const worker = pool.workers[0]!;
        const { run } = worker;
        worker.run = (...args) => {
          const running = run.apply(worker, args);
          worker.run = run;
          process.kill(pids[0]!, "SIGKILL");
          resolve();
          return running;
        };
      });
      const [first, ...others] = await Promise.all(answers);
      assert.deepEqual(await samplesOf(first!), expected);
      for (const response of others) assert.equal(response.status, 200);
      await failing;
      assert.deepEqual([await ready(), await metric(origin, "didi_healthy_workers")], [200, 1]);
      process.kill(pids[1]!, "SIGKILL");
      while (pool.healthy > 0) await once(pool, "restart");
      assert.deepEqual([await ready(), await metric(origin, "didi_healthy_workers")], [503, 0]);
      // A request waits for the first worker that is ready again.
      const waiting = generate(origin, { ...body, seed: 0 });
      await rename(`${graph}.gone`, graph);
      assert.deepEqual(await samplesOf(waiting), expected);
      assert.equal(await ready(), 200);
    },
    { maxBatchTokens: 64 },
    folder,
    2,
  );
});
