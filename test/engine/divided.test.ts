import assert from "node:assert/strict";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { divide } from "../../src/engine/call.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest, GuidanceRequest } from "../../src/engine/request.ts";
import type { Canvases, DenoiseBatch, GraphName } from "../../src/runtime/protocol.ts";
import { startEngine, TINY_GUIDED } from "../support.ts";

const SPLIT = { parts: 2, threads: 1 };

let whole: Engine;
let divided: Engine;
/** Passes of the divided one, and whether each was a part of a call. */
const passes: { graph: GraphName; batch: Canvases; isPart: boolean }[] = [];

before(async () => {
  whole = await startEngine({}, TINY_GUIDED);
  divided = await startEngine({}, TINY_GUIDED, 1, SPLIT);
  const { runtime } = divided;
  const run = runtime.run.bind(runtime);
  runtime.run = (graph, batch, attempts, isPart = false) => {
    passes.push({ graph, batch, isPart });
    return run(graph, batch, attempts, isPart);
  };
});
after(() => Promise.all([whole.runtime.close(), divided.runtime.close()]));

test("divided: in order, as evenly as whole groups allow, in no more parts than groups", () => {
  for (const sizes of [[1], [1, 1], [3, 1, 1], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2, 2]])
    for (const parts of [1, 2, 3, 4]) {
      const groups = sizes.map((size, group) => Array.from({ length: size }, (_, i) => `${group}.${i}`));
      const got = divide(groups, parts);
      assert.deepEqual(got.flat(), groups.flat());
      assert.equal(got.length, Math.min(parts, groups.length));
      const counts = got.map((part) => new Set(part.map((item) => item[0])).size);
      assert.equal(
        counts.reduce((a, b) => a + b),
        groups.length,
      );
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 1);
    }
});

const GUIDANCES: GuidanceRequest[] = [
  { mode: "none" },
  { mode: "rgas", rerank_ratio: 1, candidates: 3 },
  { mode: "rgas", rerank_ratio: 0, scale: [2, 2] },
];
/** Of every graph, to share calls. */
const REQUESTS: GenerateRequest[] = Array.from({ length: 9 }, (_, seed) => ({
  ...{ prompt_tokens: [seed + 1], length: 20, steps: 6, seed, guidance: GUIDANCES[seed % 3]! },
}));

/** Each answer's tokens, and the hash of all its steps. */
const answers = (engine: Engine) =>
  Promise.all(
    REQUESTS.map(async (request) => {
      const { samples, receipt } = await engine.submit(request).result;
      return [samples[0]!.tokens, receipt.trace_sha256];
    }),
  );

test("every graph's calls are divided, and no bit of an answer changes", async () => {
  passes.length = 0;
  assert.deepEqual(await answers(divided), await answers(whole));
  for (const graph of ["denoise", "tilt", "score"])
    assert.ok(
      passes.some((pass) => pass.graph === graph && pass.isPart),
      graph,
    );
});

test("what cannot be divided runs whole: a lone row, and the first step of several samples of one prompt", async () => {
  passes.length = 0;
  await divided.submit({ prompt: "", length: 20, steps: 4, seed: 3, guidance: { mode: "none" } }).result;
  assert.ok(passes.length > 0 && passes.every(({ isPart, batch }) => !isPart && batch.rows === 1));
  passes.length = 0;
  await divided.submit({ prompt: "", length: 20, steps: 4, seed: 3, n: 4, guidance: { mode: "none" } })
    .result;
  assert.equal(passes[0]!.batch.rows, 1);
  assert.equal(passes[0]!.isPart, false);
  assert.ok(passes.slice(1).some(({ isPart, batch }) => isPart && batch.rows === 2));
});

test("processes that die lose nothing, whichever they are", async () => {
  const expected = await answers(whole);
  const { runtime } = divided;
  for (let victim = 0; victim < 3; victim++) {
    const { pids } = runtime;
    assert.equal(pids.length, 3);
    const replaced = once(runtime, "replaced");
    const running = answers(divided);
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.kill(pids[victim]!, "SIGKILL");
    assert.deepEqual(await running, expected);
    await replaced;
  }
});

test("while none that takes parts holds the model, or none that takes whole calls, the others take their place", async () => {
  const { runtime } = divided;
  const batch = passes.find(({ graph }) => graph === "denoise")!.batch as DenoiseBatch;
  const expected = await runtime.run("denoise", batch);
  const [wholes, ...parts] = runtime.pids;
  for (const victims of [parts, [wholes!]]) {
    let left = victims.length;
    const back = new Promise<void>((resolve) => {
      const count = () => {
        if (--left > 0) return;
        runtime.off("replaced", count);
        resolve();
      };
      runtime.on("replaced", count);
    });
    const gone = victims.map(
      (_, i) =>
        new Promise<void>((resolve) => {
          let seen = 0;
          runtime.on("restart", () => ++seen > i && resolve());
        }),
    );
    for (const pid of victims) process.kill(pid, "SIGKILL");
    await Promise.all(gone);
    const { token } = await runtime.run("denoise", batch, undefined, victims === parts);
    assert.equal(left, victims.length, "a process was back before the pass was over");
    assert.deepEqual(token, expected.token);
    await back;
  }
});
