/** `model list` and `model check`. */

import assert from "node:assert/strict";
import { cp, mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { type ListedModel, listModels, tableOf } from "../../src/cli/commands/model-list.ts";
import { MODELS } from "../../src/model/model.ts";
import { damagedModel, type Edit, mismadeModel } from "../support/damage.ts";
import { TINY_GUIDED, TINY_STUDENT } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";
import { didiHere } from "./support.ts";

const root = scratch("models");
const copy = join(root, "copy");
beforeEach(() => cp(TINY_GUIDED, copy, { recursive: true, force: true }));

const check = (...args: string[]) =>
  didiHere(["model", "check", ...args, "--threads", "1", "--device", "cpu"]);

test("model list shows the shipped models with their abilities", async () => {
  const { code, stdout } = await didiHere(["model", "list", "--json"]);
  assert.equal(code, 0);
  const models = JSON.parse(stdout) as ListedModel[];
  const teacher = models.find(({ name }) => name === "stories-mdlm");
  assert.ok(teacher && "parameters" in teacher);
  assert.deepEqual(
    [teacher.parameters, teacher.context_length, teacher.precisions, teacher.guidance],
    [7_845_824, 256, ["fp32"], false],
  );
  assert.ok(teacher.bytes > 15e6);
  const table = await didiHere(["model", "list"]);
  assert.match(table.stdout, /^name +parameters +context +precisions +guidance +on disk\n/);
  assert.match(table.stdout, /^stories-mdlm +7\.8 M +256 tokens +fp32 +no +[\d.]+ MB$/m);
});

test("a list has every folder with a model.json, usable or not, and no other folder", async () => {
  await cp(TINY_STUDENT, join(root, "student"), { recursive: true });
  await mkdir(join(root, "notes"), { recursive: true });
  await mkdir(join(root, "broken"), { recursive: true });
  await writeFile(join(root, "broken", "model.json"), "{");
  const models = await listModels(root);
  assert.deepEqual(
    models.map(({ name }) => name),
    ["broken", "copy", "student"],
  );
  const [broken, guided, student] = models;
  assert.match((broken as { fault: string }).fault, /model\.json is not JSON/);
  assert.equal((guided as { guidance: boolean }).guidance, true);
  assert.deepEqual((student as { precisions: string[] }).precisions, ["fp32", "fp16", "int8"]);
  const table = tableOf(models);
  assert.match(table, /^copy .* yes /m);
  assert.match(table, /\ncannot be used: .*model\.json is not JSON.*\n$/);
  await assert.rejects(listModels(join(root, "gone")), /cannot read .*gone: ENOENT/);
});

test("a model of DIDI_MODELS_DIR is found by its name, and hides the package's one", async () => {
  const own = join(root, "own");
  await cp(TINY_STUDENT, join(own, "mine"), { recursive: true });
  await cp(TINY_STUDENT, join(own, "stories-mdlm"), { recursive: true });
  const env = { DIDI_MODELS_DIR: own };
  const { stdout } = await didiHere(["model", "list", "--json"], env);
  const folders = new Map((JSON.parse(stdout) as ListedModel[]).map(({ name, folder }) => [name, folder]));
  assert.equal(folders.get("mine"), join(own, "mine"));
  assert.equal(folders.get("stories-mdlm"), join(own, "stories-mdlm"));
  assert.equal(folders.get("stories-didi"), join(MODELS, "stories-didi"));
  const args = ["generate", "a", "--model", "mine", "--length", "2", "--steps", "1", "--json"];
  assert.equal(JSON.parse((await didiHere(args, env)).stdout).samples[0].tokens.length, 2);
  const gone = await didiHere(["model", "check", "gone"], { DIDI_MODELS_DIR: join(root, "gone") });
  assert.deepEqual([gone.code, /gone does not exist/.test(gone.stderr)], [1, true]);
});

test("model check checks manifest, files, tokenizer and every graph in every precision", async () => {
  const { code, stdout, stderr } = await check(TINY_STUDENT);
  assert.equal(code, 0, stderr);
  const lines = stdout.trim().split("\n");
  assert.ok(lines.every((line) => line.startsWith("ok  ")));
  assert.match(lines[0]!, /^ok {2}manifest .*model\.json/);
  for (const precision of ["fp32", "fp16"])
    for (const graph of ["denoise", "tilt", "score"]) {
      assert.match(
        stdout,
        new RegExp(`^ok  file +${graph}\\.${precision}\\.onnx: \\d+ bytes, sha256 \\w{64}$`, "m"),
      );
      assert.match(stdout, new RegExp(`^ok  graph +${graph} in ${precision} on cpu, [\\d.]+ ms$`, "m"));
    }
  assert.match(stdout, /^ok {2}tokenizer /m);
});

/** Change the text of a file. */
const rewritten =
  (edit: (text: string) => string): Edit =>
  (bytes) =>
    Buffer.from(edit(bytes.toString()));

/** Add rewards to the manifest of the copy. */
const addRewards = (...names: string[]) =>
  damagedModel(copy, {
    "model.json": rewritten((text) => {
      const file = { file: "score.fp32.onnx", sha256: "0".repeat(64), bytes: 1 };
      const rewards = names.map((name) => ({ name, meaning: "none", ...file }));
      return JSON.stringify({ ...JSON.parse(text), rewards });
    }),
  });

const FAULTS: [name: string, wreck: () => Promise<unknown>, passed: number, says: RegExp][] = [
  ["no manifest", () => rm(join(copy, "model.json")), 0, /cannot read .*model\.json: ENOENT/],
  [
    "a manifest against the schema",
    () => damagedModel(copy, { "model.json": rewritten((text) => text.replace('"vocab_size"', '"vocab"')) }),
    0,
    /not a valid manifest: .*vocab_size/,
  ],
  ["a reward named twice", () => addRewards("a", "a"), 0, /\/rewards names a twice/],
  [
    "a reward that takes the discriminator's name",
    () => addRewards("discriminator"),
    0,
    /\/rewards\/0\/name/,
  ],
  [
    "a short graph",
    () => truncate(join(copy, "score.fp32.onnx"), 10),
    4,
    /score\.fp32\.onnx is damaged: 10 bytes/,
  ],
  [
    "a tokenizer of another kind",
    () => mismadeModel(copy, { "tokenizer.json": rewritten((text) => text.replace('"BPE"', '"Unigram"')) }),
    7,
    /neither a byte-level BPE/,
  ],
  [
    "a graph that is none",
    () => mismadeModel(copy, { "tilt.fp32.onnx": () => Buffer.from("nothing") }),
    8,
    /tilt\.fp32\.onnx/,
  ],
];

for (const [name, wreck, passed, says] of FAULTS)
  test(`model check stops at ${name}: one line, exit 1`, async () => {
    await wreck();
    const { code, stdout, stderr } = await check(copy);
    assert.equal(code, 1);
    assert.match(stderr, says);
    assert.match(stderr, /^didi-serve: [^\n]+\n$/);
    assert.equal(stdout.split("\n").length - 1, passed, stdout);
  });
