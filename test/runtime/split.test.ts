import assert from "node:assert/strict";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Model, openModel } from "../../src/model/model.ts";
import { splitOf } from "../../src/runtime/split.ts";
import { TINY_GUIDED } from "../support.ts";

test("auto divides the calls of a small model in two, with half of the threads each", async () => {
  const model = await openModel(TINY_GUIDED);
  assert.deepEqual(await splitOf("auto", model, 8), { parts: 2, threads: 4 });
  assert.deepEqual(await splitOf("auto", model, 3), { parts: 2, threads: 1 });
  assert.equal(await splitOf("auto", model, 1), undefined);
});

test("auto leaves a model whole that is too large to be copied", async () => {
  const model = await openModel(TINY_GUIDED);
  const folder = await mkdtemp(join(tmpdir(), "didi-split-"));
  try {
    const { denoise, ...others } = model.manifest.graphs;
    for (const graph of [denoise, ...Object.values(others)])
      await writeFile(join(folder, graph[model.precision.cpu]!.file), "");
    const { file } = model.manifest.data![model.precision.cpu]!;
    await writeFile(join(folder, file), "");
    const there: Model = { ...model, folder };
    // Sparse: they take no room on the disk.
    await truncate(join(folder, file), 128 << 20);
    assert.deepEqual(await splitOf("auto", there, 8), { parts: 2, threads: 4 });
    await truncate(join(folder, file), (128 << 20) + 1);
    assert.equal(await splitOf("auto", there, 8), undefined);
    assert.deepEqual(await splitOf(2, there, 8), { parts: 2, threads: 4 });
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("as many parts as asked for, each with a thread at least", async () => {
  const model = await openModel(TINY_GUIDED);
  assert.deepEqual(await splitOf(4, model, 2), { parts: 4, threads: 1 });
  assert.deepEqual(await splitOf(3, model, 16), { parts: 3, threads: 5 });
  assert.equal(await splitOf(1, model, 8), undefined);
});
