/** The second tier of the cache, over a store in memory. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { traceSha256 } from "../../../src/engine/answers/receipt.ts";
import { type AnswerStore, SharedCache } from "../../../src/engine/answers/shared-cache.ts";
import { Engine, type EngineLimits } from "../../../src/engine/engine.ts";
import { prepare } from "../../../src/engine/prepare.ts";
import { CancelledError, UnavailableError } from "../../../src/errors.ts";
import { type Model, openModel } from "../../../src/model/model.ts";
import { WorkerPool } from "../../../src/runtime/pool.ts";
import { kernelFlags, processorOf } from "../../../src/runtime/processor.ts";
import { LIMITS, TINY_GUIDED } from "../../support/engine.ts";

/** Keeps everything; lookups wait for `gate`. */
class Store implements AnswerStore {
  readonly kept = new Map<string, string>();
  readonly asked: string[] = [];
  gate: Promise<void> = Promise.resolve();
  async get(key: string): Promise<string | undefined> {
    this.asked.push(key);
    await this.gate;
    return this.kept.get(key);
  }
  async set(key: string, value: string): Promise<void> {
    this.kept.set(key, value);
  }
}

const model = await openModel(TINY_GUIDED);
let runtime: WorkerPool;
before(async () => {
  runtime = await WorkerPool.start({ graphs: model.graphs, device: "cpu", threads: 1 });
});
after(() => runtime.close());

/** Start an engine with its own cache, like a further server. */
async function server(
  store: AnswerStore,
  processor = "avx2",
  limits: Partial<EngineLimits> = {},
): Promise<Engine> {
  const cache = { maxBytes: 1e6, ttlMs: 60_000 };
  const engine = new Engine(
    model,
    runtime,
    { ...LIMITS, cache, ...limits },
    new SharedCache(store, model, 60_000, () => processor),
  );
  await engine.warmUp();
  return engine;
}

const REQUEST = { prompt: "Once", length: 12, steps: 4, seed: 5 };

test("engines share answers exactly, ranked and guided ones too", async () => {
  const store = new Store();
  const [one, other] = [await server(store), await server(store)];
  const guidance = { mode: "rgas" as const, rerank_ratio: 0.5 };
  const request = { ...REQUEST, guidance, best_of: 3, n: 2, logprobs: true, trace: true };
  const first = await one.submit(request).result;
  const steps: number[] = [];
  const second = await other.submit(request, ({ step }) => steps.push(step)).result;
  assert.deepEqual([first.cache, second.cache], ["miss", "hit"]);
  assert.deepEqual({ ...second, id: 0, cache: 0, timing: 0 }, { ...first, id: 0, cache: 0, timing: 0 });
  assert.ok(steps.length >= 4 * 3);
  // The second lookup hits its own cache.
  store.kept.clear();
  assert.equal((await other.submit(request).result).cache, "hit");
});

test("an engine without a cache of its own finds an answer again and again", async () => {
  const store = new Store();
  await (await server(store)).submit(REQUEST).result;
  const other = await server(store, "avx2", { cache: { maxBytes: 0, ttlMs: 0 } });
  for (let i = 0; i < 2; i++) assert.equal((await other.submit(REQUEST).result).cache, "hit");
});

test("another seed, another processor and a random seed do not share answers", async () => {
  const store = new Store();
  await (await server(store)).submit(REQUEST).result;
  const other = await server(store);
  assert.equal((await other.submit({ ...REQUEST, seed: 6 }).result).cache, "miss");
  assert.equal((await other.submit({ ...REQUEST, seed: undefined }).result).cache, "miss");
  assert.equal((await (await server(store, "avx512f")).submit(REQUEST).result).cache, "miss");
  // Three answers with a seed, none without.
  assert.equal(store.kept.size, 3);
});

test("another model and another precision do not share answers", async () => {
  const keyOf = async (change: Partial<Model>) => {
    const store = new Store();
    await new SharedCache(store, { ...model, ...change }, 60_000).find(
      { ...prepare(model, REQUEST, () => 0).params },
      "cpu",
    );
    return store.asked;
  };
  const own = await keyOf({});
  assert.deepEqual(await keyOf({}), own);
  assert.notDeepEqual(await keyOf({ sha256: { cpu: "0", cuda: "0" } }), own);
  assert.notDeepEqual(await keyOf({ precision: { cpu: "int8", cuda: "int8" } }), own);
});

test("the processor is identified by the instruction sets of kernels and the version of ONNX Runtime", () => {
  const amd = "processor: 0\nflags\t\t: fpu avx512f vme avx2 fma\nbugs:\n\nprocessor: 1\nflags: fpu avx2\n";
  assert.equal(kernelFlags(amd), "avx2 avx512f fma");
  assert.equal(kernelFlags("Features\t: fp asimd evtstrm sve2"), "asimd sve2");
  assert.equal(kernelFlags("nothing"), undefined);
  assert.match(processorOf("cpu"), /^onnxruntime \d+\.\d+\.\d+; \w+; ./);
  assert.equal(processorOf("cpu"), processorOf("cpu"));
});

test("a damaged answer is computed again", async () => {
  const store = new Store();
  const first = await (await server(store)).submit(REQUEST).result;
  const [[key, text]] = [...store.kept] as [[string, string]];
  const kept = JSON.parse(text);
  const swapped = structuredClone(kept);
  swapped.records.at(-1).record.revealed[0].token ^= 1;
  const short = structuredClone(kept);
  short.records.pop();
  // Its hash is right, but a step is missing.
  const unfinished = { ...short, traceSha256: traceSha256(short.records, short.rewards) };
  const edited = [swapped, short, unfinished].map((value) => JSON.stringify(value));
  for (const damage of ["", "{", "null", "[]", "{}", ...edited]) {
    store.kept.set(key, damage);
    const answer = await (await server(store)).submit(REQUEST).result;
    assert.equal(answer.cache, "miss", damage);
    assert.deepEqual(answer.samples, first.samples);
  }
});

test("requests in a shared lookup are queued, can be cancelled and joined, and are drained", async () => {
  const store = new Store();
  const engine = await server(store, "avx2", { maxQueue: 1, maxActive: 1 });
  let open!: () => void;
  store.gate = new Promise((resolve) => {
    open = resolve;
  });
  const [first, joined, second] = [
    engine.submit(REQUEST),
    engine.submit(REQUEST),
    engine.submit({ ...REQUEST, seed: 6 }),
  ];
  assert.equal(engine.queueLength, 2);
  assert.throws(() => engine.submit({ ...REQUEST, seed: 7 }), { name: "OverloadedError" });
  second.cancel();
  await assert.rejects(second.result, CancelledError);
  assert.equal(engine.queueLength, 1);
  const drained = engine.drain();
  open();
  await drained;
  assert.deepEqual([(await first.result).cache, (await joined.result).cache], ["miss", "shared"]);
});

test("abort ends requests in a shared lookup", async () => {
  const store = new Store();
  const engine = await server(store);
  store.gate = new Promise(() => {});
  const handle = engine.submit(REQUEST);
  engine.abort();
  await assert.rejects(handle.result, UnavailableError);
  assert.equal(engine.queueLength, 0);
});
