import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest, GuidanceRequest } from "../../src/engine/request.ts";
import { openModel } from "../../src/model/model.ts";
import type { Batch, Canvases, DenoiseInput, DenoiseResult, TiltInput } from "../../src/runtime/protocol.ts";
import { divide } from "../../src/runtime/worker/divide.ts";
import { loadModel } from "../../src/runtime/worker/session.ts";
import { Worker } from "../../src/runtime/worker-process.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";

/** Return an input of `rows` rows of 2 tokens. Row r has r + 1 picks and draws each of them twice. */
function tilt(rows: number): TiltInput {
  const owners = Array.from({ length: rows }, (_, row) => Array.from({ length: row + 1 }, () => row)).flat();
  const each = <T>(of: (row: number) => T) => Array.from({ length: rows }, (_, row) => of(row));
  const draws = each((row) => {
    const own = owners.flatMap((owner, pick) => (owner === row ? [pick] : []));
    return [...own, ...own];
  }).flat();
  return {
    rows,
    padded: 2,
    tokens: Int32Array.from(each((row) => [row, row]).flat()),
    length: Int32Array.from(each((row) => row)),
    sigma: Float32Array.from(each((row) => row)),
    picks: Int32Array.from(owners.flatMap((row, pick) => [row, pick])),
    draws: Int32Array.from(draws),
    uniform: Float32Array.from(draws),
    temperature: Float32Array.from(draws),
    topK: Int32Array.from(draws),
    topP: Float32Array.from(draws),
    maskBias: Float32Array.from(each((row) => row)),
    alternatives: 0,
    scale: Float32Array.from(each((row) => row)),
  };
}

test("parts hold every row, pick and draw once, in order, with their own indices", () => {
  for (const rows of [2, 4, 5, 9])
    for (const parts of [2, 3]) {
      const input = tilt(rows);
      const divided = divide({ graph: "tilt", input }, parts);
      if (divided.length === 1) continue;
      assert.equal(divided.length, parts);
      const batches = divided.map((part) => part.input as TiltInput);
      const sizes = batches.map((part) => part.rows);
      assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
      for (const name of ["tokens", "length", "sigma", "uniform", "temperature"] as const)
        assert.deepEqual(
          batches.flatMap((part) => [...part[name]]),
          [...input[name]],
          name,
        );
      for (const name of ["topK", "topP", "maskBias", "scale"] as const)
        assert.deepEqual(
          batches.flatMap((part) => [...part[name]]),
          [...input[name]],
          name,
        );
      let row = 0;
      const seen = batches.flatMap(({ rows: own, picks, draws }) => {
        const first = row;
        row += own;
        return [...draws].map((pick) => [picks[2 * pick]! + first, picks[2 * pick + 1]!]);
      });
      assert.deepEqual(
        seen,
        [...input.draws].map((pick) => [input.picks[2 * pick]!, input.picks[2 * pick + 1]!]),
      );
    }
});

test("a batch is divided only if no part is more than a quarter above an even share", () => {
  const counts = (parts: number) =>
    [1, 2, 3, 4, 5, 6, 7, 8, 9].map((rows) => divide({ graph: "tilt", input: tilt(rows) }, parts).length);
  assert.deepEqual(counts(1), [1, 1, 1, 1, 1, 1, 1, 1, 1]);
  assert.deepEqual(counts(2), [1, 2, 1, 2, 2, 2, 2, 2, 2]);
  assert.deepEqual(counts(4), [1, 1, 1, 4, 1, 1, 4, 4, 1]);
});

test("canvases without draws are divided too", () => {
  const { picks: _, ...input } = tilt(4);
  const canvases: Canvases = {
    rows: input.rows,
    padded: input.padded,
    tokens: input.tokens,
    length: input.length,
    sigma: input.sigma,
  };
  const parts: Batch[] = divide({ graph: "score", input: canvases }, 2);
  assert.deepEqual(
    parts.map((part) => [...part.input.tokens]),
    [
      [0, 0, 1, 1],
      [2, 2, 3, 3],
    ],
  );
  assert.ok(parts.every(({ input }) => !("draws" in input)));
});

const whole = await startEngine({}, TINY_GUIDED);
const divided = await startEngine({}, TINY_GUIDED, 1, { parts: 3, threads: 1 });

const GUIDANCES: GuidanceRequest[] = [
  { mode: "none" },
  { mode: "rgas", rerank_ratio: 1, candidates: 3 },
  { mode: "rgas", rerank_ratio: 0, scale: [2, 2] },
];
/** Requests for every graph, of two samples each, which share their first pass. */
const REQUESTS: GenerateRequest[] = Array.from({ length: 12 }, (_, seed) => ({
  ...{ prompt_tokens: [seed + 1], length: 20, steps: 6, n: 2, seed, guidance: GUIDANCES[seed % 3]! },
}));

/** Return the tokens of each answer and the hash of its steps. */
const answers = (engine: Engine) =>
  Promise.all(
    REQUESTS.map(async (request) => {
      const { samples, receipt } = await engine.submit(request).result;
      return [samples.map(({ tokens }) => tokens), receipt.trace_sha256];
    }),
  );

test("every graph has batches that can be divided, and no bit of an answer changes", async () => {
  const { pool } = divided;
  const run = pool.run.bind(pool);
  const large = new Set<string>();
  pool.run = (graph, batch, attempts) => {
    if (divide({ graph, input: batch } as Batch, 3).length === 3) large.add(graph);
    return run(graph, batch, attempts);
  };
  const expected = await answers(whole);
  assert.deepEqual(await answers(divided), expected);
  assert.deepEqual([...large].toSorted(), ["denoise", "score", "tilt"]);
  pool.run = run;
});

test("with `everywhere` a batch runs in every session", async () => {
  const { graphs } = await openModel(TINY_GUIDED);
  const worker = await Worker.start({ graphs, device: "cpu", threads: 2, split: { parts: 3, threads: 1 } });
  const ask = (everywhere: boolean) => {
    const given = { ...tilt(1), tokens: Int32Array.of(5, 6), length: Int32Array.of(2) };
    const drawn = { uniform: Float32Array.of(0.3, 0.6), temperature: Float32Array.of(1, 1) };
    const input = { ...given, ...drawn, topK: Int32Array.of(0, 0), topP: Float32Array.of(1, 1) };
    return worker.run({ graph: "denoise", input }, 60_000, everywhere) as Promise<DenoiseResult>;
  };
  const [once, each] = [await ask(false), await ask(true)];
  await worker.close();
  assert.equal(once.token.length, 2);
  for (const name of ["token", "logprob", "entropy"] as const)
    assert.deepEqual(
      [...each[name]],
      Array(4)
        .fill([...once[name]])
        .flat(),
    );
});

test("a part loads the graphs of guidance with their first batch", async () => {
  const { denoise } = (await openModel(TINY_GUIDED)).graphs.cpu;
  const graphs = { cpu: { denoise, tilt: "missing.onnx" }, cuda: { denoise } };
  const load = (lazy: boolean) => loadModel({ graphs, device: "cpu", threads: 1, lazy });
  await assert.rejects(load(false), /missing\.onnx/);
  const part = await load(true);
  await assert.rejects(part.run({ graph: "tilt", input: tilt(1) }), /missing\.onnx/);
  await assert.rejects(part.run({ graph: "score", input: tilt(1) }), /no graph score/);
});

/** Loads a divided model, runs a batch and prints the rows that each thread was sent. */
const WATCHED = `
import { Worker } from "node:worker_threads";
const { loadDivided } = await import("./src/runtime/worker/divided.ts");
const { graphs, call } = JSON.parse(process.argv[1]);
const input = Object.fromEntries(
  Object.entries(call.input).map(([name, value]) => [
    name,
    Array.isArray(value) ? (call.floats.includes(name) ? Float32Array : Int32Array).from(value) : value,
  ]),
);
const model = await loadDivided({ graphs, device: "cpu", threads: 1, split: { parts: 3, threads: 1 } });
const sent = [];
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (part, ...rest) {
  sent.push(part.input.rows);
  return post.call(this, part, ...rest);
};
await model.run({ graph: "score", input });
console.log(JSON.stringify(sent));
process.exit(0);
`;

test("threads get their parts of a divided batch, and nothing of a whole one", async () => {
  const { graphs } = await openModel(TINY_GUIDED);
  const sent = (rows: number) => {
    const zeros = (count: number) => Array<number>(count).fill(0);
    const canvases = { tokens: zeros(2 * rows), length: Array(rows).fill(2), sigma: zeros(rows) };
    const call = { input: { rows, padded: 2, ...canvases }, floats: ["sigma"] };
    const args = ["--import", "tsx", "--input-type=module", "-e", WATCHED, JSON.stringify({ graphs, call })];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    assert.notEqual(stdout, "", stderr);
    return JSON.parse(stdout) as number[];
  };
  assert.deepEqual(sent(8), [2, 3]);
  assert.deepEqual(sent(4), []);
});

test("a worker that dies during a divided batch loses nothing", async () => {
  const expected = await answers(whole);
  const { pool } = divided;
  let restarts = 0;
  pool.on("restart", () => restarts++);
  const running = answers(divided);
  await new Promise((resolve) => setTimeout(resolve, 10));
  process.kill(pool.pids[0]!, "SIGKILL");
  assert.deepEqual(await running, expected);
  assert.equal(restarts, 1);
});

test("a failed part fails the batch with its message, and the next batch runs", async () => {
  const { pool } = divided;
  const input = tilt(3);
  const good = { ...input, tokens: new Int32Array(6), length: Int32Array.of(2, 2, 2) };
  const bad: DenoiseInput = { ...good, tokens: Int32Array.of(0, 0, 0, 0, 1 << 20, 0) };
  const picks = Int32Array.of(0, 0, 1, 0, 2, 0);
  const draws = Int32Array.of(0, 1, 2);
  const flat = { uniform: new Float32Array(3).fill(0.5), temperature: new Float32Array(3).fill(1) };
  const rest = { picks, draws, ...flat, topK: new Int32Array(3), topP: new Float32Array(3).fill(1) };
  await assert.rejects(pool.run("denoise", { ...bad, ...rest }), /indices|range|bound/i);
  const { token } = await pool.run("denoise", { ...good, ...rest });
  assert.equal(token.length, 3);
});
