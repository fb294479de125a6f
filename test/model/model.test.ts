import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, test } from "node:test";
import { StartupError } from "../../src/errors.ts";
import { modelFolder, openModel } from "../../src/model/model.ts";
import { dotProducts } from "../../src/model/precision.ts";
import { MODEL, TEACHER, TINY_GUIDED, TINY_STUDENT } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

const root = scratch("model");
const folder = join(root, "copy");
beforeEach(() => cp(modelFolder(MODEL), folder, { recursive: true, force: true }));

const refuses = (pattern: RegExp) =>
  assert.rejects(openModel(folder, "fp32"), (error) => {
    assert.ok(error instanceof StartupError);
    assert.equal(error.exitCode, 1);
    assert.doesNotMatch(error.message, /\n/);
    return pattern.test(error.message);
  });

async function editManifest(edit: (manifest: Record<string, unknown>) => void): Promise<void> {
  const path = join(folder, "model.json");
  const manifest = JSON.parse(await readFile(path, "utf8"));
  edit(manifest);
  await writeFile(path, JSON.stringify(manifest));
}

test("opens a model by name and by folder", async () => {
  assert.equal((await openModel(MODEL)).manifest.name, MODEL);
  assert.equal((await openModel(folder)).manifest.name, MODEL);
});

test("the identity of a model covers exactly the fields of its manifest that tokens depend on", async () => {
  const before = await openModel(folder);
  const edits: Record<string, unknown> = {
    schedule: { ...before.manifest.schedule, alpha_min: 0.002 },
    context_length: before.manifest.context_length - 1,
    end_of_text_token_id: 7,
    conditioning: "sigma",
    mask_logit: "kept",
    guidance: { ...before.manifest.guidance, scale_end: 3 },
  };
  for (const [name, value] of Object.entries(edits)) {
    await cp(modelFolder(MODEL), folder, { recursive: true, force: true });
    await editManifest((manifest) => {
      manifest[name] = value;
    });
    const after = await openModel(folder);
    assert.notEqual(after.sha256.cpu, before.sha256.cpu, name);
    assert.notEqual(after.sha256.cuda, before.sha256.cuda, name);
  }
  await cp(modelFolder(MODEL), folder, { recursive: true, force: true });
  await editManifest((manifest) => {
    // The order of fields, an explicit default, and descriptions.
    manifest.schedule = Object.fromEntries(Object.entries(manifest.schedule as object).reverse());
    Object.assign(manifest, { mask_logit: "removed", description: "another", licence: "another" });
  });
  assert.deepEqual((await openModel(folder)).sha256, before.sha256);
});

test("a missing folder is named", () =>
  assert.rejects(openModel("no-such-model"), /no-such-model does not exist/));

test("a truncated graph is damaged", async () => {
  await truncate(join(folder, "denoise.fp32.onnx"), 1000);
  await refuses(/denoise\.fp32\.onnx is damaged: 1000 bytes/);
});

for (const file of ["denoise.fp32.onnx", "weights.fp16.safetensors", "tokenizer.json"])
  test(`a changed byte of ${file} is found by its sha256`, async () => {
    const path = join(folder, file);
    const bytes = await readFile(path);
    bytes[bytes.length >> 1]! ^= 1;
    await writeFile(path, bytes);
    await refuses(new RegExp(`${file} is damaged: its sha256`));
  });

test("a manifest with an unknown, a missing or an outward-pointing field is refused", async () => {
  await editManifest((manifest) => {
    manifest.colour = "blue";
  });
  await refuses(/additional properties \(colour\)/);
  await cp(modelFolder(MODEL), folder, { recursive: true, force: true });
  await editManifest((manifest) => {
    delete manifest.vocab_size;
  });
  await refuses(/vocab_size/);
  await cp(modelFolder(MODEL), folder, { recursive: true, force: true });
  await editManifest((manifest) => {
    (manifest.tokenizer as { file: string }).file = "../tokenizer.json";
  });
  await refuses(/\/tokenizer\/file must be the name of a file in the folder/);
});

test("a tokenizer with an unknown regular expression is refused, whatever its sha256", async () => {
  const path = join(folder, "tokenizer.json");
  const tokenizer = JSON.parse(await readFile(path, "utf8"));
  tokenizer.pre_tokenizer = {
    type: "Split",
    pattern: { Regex: "(a+)+$" },
    behavior: "Isolated",
    invert: false,
  };
  const bytes = Buffer.from(JSON.stringify(tokenizer));
  await writeFile(path, bytes);
  await editManifest((manifest) => {
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    manifest.tokenizer = { file: "tokenizer.json", sha256, bytes: bytes.length };
  });
  await refuses(/tokenizer\.json: its pre_tokenizer is not one that is known/);
});

test("a manifest that is not JSON is refused", async () => {
  await writeFile(join(folder, "model.json"), "{");
  await refuses(/is not JSON/);
});

test("auto takes fp16 for CUDA, int8 for CPUs with dot products; a named one applies to both", async () => {
  const auto = await openModel(TINY_STUDENT);
  const cpu = dotProducts() ? "int8" : "fp32";
  assert.deepEqual(auto.precision, { cpu, cuda: "fp16" });
  assert.match(auto.graphs.cpu.denoise, new RegExp(`denoise\\.${cpu}\\.onnx$`));
  assert.match(auto.graphs.cuda.denoise, /denoise\.fp16\.onnx$/);
  const half = await openModel(TINY_STUDENT, "fp16");
  assert.match(half.graphs.cpu.denoise, /denoise\.fp16\.onnx$/);
  assert.deepEqual((await openModel(TEACHER)).precision, { cpu: "fp32", cuda: "fp32" });
  await assert.rejects(
    openModel(TINY_GUIDED, "int8"),
    /tiny-guided has no int8 graphs: --precision can be fp32/,
  );
});

test("fields of a manifest that depend on each other must all be present", async () => {
  type Graphs = Record<string, Record<string, object>>;
  const cases: [edit: (manifest: Record<string, unknown>, graphs: Graphs) => void, says: RegExp][] = [
    [(manifest) => delete manifest.guidance, /guidance must be present if and only if/],
    [(_, graphs) => delete graphs.score, /must have property score when property tilt is present/],
    [
      (_, graphs) => delete graphs.tilt!.fp16,
      /graph tilt has the precisions fp32, int8, and denoise has fp32, fp16, int8/,
    ],
    [(_, graphs) => Object.assign(graphs, { denoise: {} }), /denoise must NOT have fewer than 1 properties/],
  ];
  for (const [edit, says] of cases) {
    await cp(TINY_STUDENT, folder, { recursive: true, force: true });
    await editManifest((manifest) => edit(manifest, manifest.graphs as Graphs));
    await refuses(says);
  }
});
