/** Converted checkpoints of every family, through engine and graphs, equal their networks in PyTorch. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { FAMILIES } from "../../src/model/foreign.ts";
import { openModel } from "../../src/model/model.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { type GoldenRequest, openEngine } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

/** [UNK] in the tokenizer of BERT. */
const UNKNOWN = 0;

const folder = fileURLToPath(new URL("../fixtures/families", import.meta.url));
interface Golden {
  samples: GoldenRequest[];
  /** By the Python library of tokenizers. */
  encodings: { text: string; ids: number[] }[];
}

const GOLDEN: Record<string, Golden> = JSON.parse(
  await readFile(new URL("../golden/families.json", import.meta.url), "utf8"),
);

for (const [family, { samples: goldens, encodings }] of Object.entries(GOLDEN)) {
  test(`${family} equals its network, token for token`, async () => {
    const engine = await openEngine({}, join(folder, family));
    try {
      assert.equal(engine.model.manifest.family, family);
      for (const { prompt, tokens, reveals, ...request } of goldens) {
        const text = engine.model.tokenizer.decode(prompt);
        const { samples } = await engine.submit({ ...request, prompt: text, logprobs: true }).result;
        const [sample] = samples;
        assert.deepEqual(sample!.tokens, tokens.slice(prompt.length));
        for (const [position, , logprob] of reveals.flat())
          assert.ok(Math.abs(sample!.logprobs![position - prompt.length]! - logprob) < 1e-4);
      }
    } finally {
      await engine.pool.close();
    }
  });

  test(`the tokenizer of ${family} encodes as in Python, and no text is a special token`, async () => {
    const { tokenizer, manifest } = await openModel(join(folder, family));
    const { added_tokens } = JSON.parse(await readFile(join(folder, family, "tokenizer.json"), "utf8"));
    const special = new Set<number>([manifest.mask_token_id, manifest.end_of_text_token_id]);
    for (const { id, special: is, content } of added_tokens) if (is && content !== "[UNK]") special.add(id);
    assert.equal(special.size, 3);
    for (const { text, ids } of encodings) {
      const encoded = tokenizer.encode(text, 1024)!;
      assert.deepEqual(encoded, ids, text);
      assert.ok(!encoded.some((id) => special.has(id)), text);
      const decoded = tokenizer.decode(encoded);
      if (tokenizer.isLossless) assert.equal(decoded, text);
      else if (!ids.includes(UNKNOWN)) assert.deepEqual(tokenizer.encode(decoded, 1024), ids, decoded);
    }
    special.delete(manifest.mask_token_id);
    assert.equal(tokenizer.decode([...special], {}, true), "");
    const [think] = added_tokens.filter((token: { content: string }) => token.content === "<think>");
    if (think) assert.equal(tokenizer.decode([think.id]), "<think>");
  });
}

test("there is a golden model of each family that has a network of its own", async () => {
  const own = new Set(["didi-instruct", "mdlm", "idlm"]);
  const others = FAMILIES.filter((family) => !own.has(family));
  assert.deepEqual(Object.keys(GOLDEN).toSorted(), others.toSorted());
  const text = await readFile(join(PACKAGE_ROOT, "training", "didi", "families", "tables.py"), "utf8");
  for (const family of others) assert.ok(text.includes(`"${family}": Family(`), family);
});

test("a graph's data is part of the model's identity, and is checked", async () => {
  const root = scratch("family");
  await cp(join(folder, "llada"), root, { recursive: true });
  const { sha256 } = await openModel(root);
  const file = (await readdir(root)).find((name) => name.startsWith("float"))!;
  const path = join(root, "model.json");
  const manifest = JSON.parse(await readFile(path, "utf8"));
  const entry = manifest.graphs.denoise.fp32.data.find((one: { file: string }) => one.file === file);
  const bytes = await readFile(join(root, file));
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(join(root, file), bytes);
  await assert.rejects(openModel(root), /float\.1\.safetensors is damaged: its sha256 is/);
  entry.sha256 = createHash("sha256").update(bytes).digest("hex");
  await writeFile(path, JSON.stringify(manifest));
  assert.notEqual((await openModel(root)).sha256.cpu, sha256.cpu);
  manifest.graphs.denoise.fp32.data = [];
  await writeFile(path, JSON.stringify(manifest));
  await assert.rejects(openModel(root), /reads "common\.1\.safetensors", which model\.json does not name/);
});
