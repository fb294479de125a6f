import assert from "node:assert/strict";
import { cpSync, readdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { labelOf } from "../../loadtest/quality/report.ts";
import { samplesOf } from "../../loadtest/quality/sample.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

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
  assert.equal(readdirSync(keep).length, 4);
});

test("a setting without a request has no samples", async () => {
  const config = { model: TINY_GUIDED, samples: 3, length: 12 };
  assert.equal(await samplesOf({ name: "held-out" }, config, assert.fail), undefined);
});

test("a point is labelled by what its series does not say", () => {
  assert.equal(labelOf("threshold 0.9", "threshold"), "0.9");
  assert.equal(labelOf("4 steps, guided, 0.94", "4 steps, guided"), "0.94");
  assert.equal(labelOf("8 steps, temperature 0.94", "steps, temperature 0.94"), "8");
  assert.equal(labelOf("plain", "others"), "plain");
});
