/** The reward of docs/rewards.md is written, checked and used as the page says. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { startEngine } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";
import { blocksOf } from "./blocks.ts";
import { preparedEnvironment } from "./roles/walk.ts";

const environment = preparedEnvironment();
const python = environment && join(environment, "bin", "python");
const parent = scratch("rewards");

test("docs/rewards.md", { skip: !python && "needs training/requirements.txt" }, async () => {
  const folder = join(parent, "stories-mine");
  cpSync(join(PACKAGE_ROOT, "models", "stories-didi"), folder, { recursive: true });
  const [code] = blocksOf("docs/rewards.md").filter(({ language }) => language === "python");
  const file = join(parent, "few_repeats.py");
  writeFileSync(file, code!.text);
  const run = (program: string, ...args: string[]) => {
    const done = spawnSync(program, args, { encoding: "utf8" });
    assert.equal(done.status, 0, done.stderr);
    return done.stdout;
  };
  run(python!, file, folder);
  const main = join(PACKAGE_ROOT, "src", "didi-serve.js");
  assert.match(run(process.execPath, main, "model", "check", folder), /^ok {2}graph +reward few-repeats in/m);

  const engine = await startEngine({}, folder);
  const asked = { prompt: "Once upon a time", length: 40, steps: 4, seed: 1 };
  const rank_by = { "few-repeats": 1 };
  const { samples } = await engine.submit({ ...asked, best_of: 4, n: 4, rank_by }).result;
  const rewards = samples.map(({ reward }) => reward!);
  assert.deepEqual(
    rewards,
    rewards.toSorted((a, b) => b - a),
  );
  const prompt = engine.model.tokenizer.encode(asked.prompt, 100)!;
  for (const [i, { tokens }] of samples.entries()) {
    const text = [...prompt, ...tokens];
    const repeats = text.flatMap((token, at) =>
      text.slice(Math.max(0, at - 8), at).filter((other) => other === token),
    );
    assert.equal(rewards[i], -repeats.length);
  }
});
