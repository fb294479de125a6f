import assert from "node:assert/strict";
import { cpSync, existsSync, readdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { labelOf } from "../../loadtest/quality/report.ts";
import { type Setting, samplesOf } from "../../loadtest/quality/sample.ts";
import { storeQuality } from "../../loadtest/quality/store.ts";
import { type ModelInfo, qualityOf } from "../../loadtest/sweep/quality.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

/** No interruption. */
const NEVER = new AbortController().signal;

test("samples are kept for a setting and the files of a model, and drawn again for others", async () => {
  const folder = scratch("quality");
  const [keep, model] = [join(folder, "keep"), join(folder, "model")];
  cpSync(TINY_GUIDED, model, { recursive: true });
  const draw = async (steps: number, length = 12) => {
    let drawn = 0;
    const config = { model, samples: 3, length, keep };
    const result = await samplesOf(
      { name: "a", precision: "fp32", request: { steps } },
      config,
      () => drawn++,
      NEVER,
    );
    return { drawn, result };
  };
  const first = await draw(4);
  assert.equal(first.drawn, 3);
  assert.deepEqual(
    first.result!.tokens.map(({ length }) => length),
    [12, 12, 12],
  );
  assert.deepEqual(await draw(4), { drawn: 0, result: first.result });
  assert.equal((await draw(5)).drawn, 3);
  assert.equal((await draw(4, 13)).drawn, 3);

  const file = join(model, "model.json");
  const manifest = JSON.parse(await readFile(file, "utf8"));
  await writeFile(file, JSON.stringify({ ...manifest, schedule: { ...manifest.schedule, t_min: 1e-4 } }));
  assert.equal((await draw(4)).drawn, 3);
  assert.equal((await draw(4)).drawn, 0);
  await writeFile(file, JSON.stringify({ ...manifest, defaults: { order: "spread" } }));
  assert.equal((await draw(4)).drawn, 3);
  assert.equal(readdirSync(keep).length, 5);
});

test("an interrupted setting is not kept", async () => {
  const keep = join(scratch("quality"), "keep");
  const config = { model: TINY_GUIDED, samples: 40, length: 12, keep };
  const stop = new AbortController();
  const sampled = samplesOf({ name: "a", request: { steps: 4 } }, config, () => stop.abort(), stop.signal);
  await assert.rejects(sampled, { name: "AbortError" });
  assert.equal(existsSync(keep), false);
});

test("a setting is sampled from its own model; one without a request is not sampled", async () => {
  const config = { model: "no-such-model", samples: 2, length: 12 };
  const result = await samplesOf(
    { name: "a", model: TINY_GUIDED, request: { steps: 2 } },
    config,
    () => {},
    NEVER,
  );
  assert.equal(result!.tokens.length, 2);
  assert.equal(await samplesOf({ name: "b", held_out: "stories" }, config, assert.fail, NEVER), undefined);
  assert.equal(
    await samplesOf({ name: "c", causal: ".", temperature: 1 }, config, assert.fail, NEVER),
    undefined,
  );
});

test("a manifest takes the figures of its own model by steps, plain and with default guidance", async () => {
  const path = join(scratch("store"), "model.json");
  await writeFile(path, JSON.stringify({ name: "a", quality: [] }));
  const settings: Setting[] = [
    { name: "plain", request: { steps: 8 } },
    { name: "guided", request: { steps: 8, guidance: { mode: "rgas" } } },
    { name: "other guidance", request: { steps: 8, guidance: { mode: "rgas", candidates: 2 } } },
    { name: "cooler", request: { steps: 8, temperature: 0.9 } },
    { name: "other model", model: "b", request: { steps: 8 } },
    { name: "held-out", held_out: "stories" },
  ];
  const words = { known: 1, pairs: 1, triples: 1, distinct: 1, repeated: 0, unique: 1 };
  const scores = settings.map((_, i) => ({
    ...{ entropy: 4 + i / 3, words },
    judges: [
      { perplexity: 20 + i, interval: [19, 21] as [number, number] },
      { perplexity: 99, interval: [98, 100] as [number, number] },
    ],
  }));
  storeQuality(path, settings, scores);
  assert.deepEqual(JSON.parse(await readFile(path, "utf8")), {
    name: "a",
    quality: [
      { sampler: "plain", steps: 8, generative_perplexity: 20, entropy: 4 },
      { sampler: "rgas", steps: 8, generative_perplexity: 21, entropy: 4.3333 },
    ],
  });
});

test("a point is labelled by what its series does not say", () => {
  assert.equal(labelOf("threshold 0.9", "threshold"), "0.9");
  assert.equal(labelOf("4 steps, guided, 0.9", "4 steps, guided"), "0.9");
  assert.equal(labelOf("8 steps, temperature 0.9", "steps, temperature 0.9"), "8");
  assert.equal(labelOf("plain", "others"), "plain");
});

test("a load test finds the peer's perplexity in the card of a shipped model alone", async () => {
  const path = join(PACKAGE_ROOT, "models", "stories-didi", "card", "quality.json");
  const { cells } = JSON.parse(await readFile(path, "utf8"));
  const peer = cells.find(({ name }: Setting) => name === "peer, 1");
  const of = (name: string) => qualityOf({ name } as ModelInfo);
  assert.deepEqual(of("stories-didi"), [
    { sampler: "autoregressive", perplexity: peer.judges[0].perplexity },
  ]);
  assert.deepEqual(of("stories-mdlm"), []);
  assert.deepEqual(of("../models/stories-didi"), []);
});
