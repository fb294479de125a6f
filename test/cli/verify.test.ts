/** `verify` with receipts from untrusted sources. */

import assert from "node:assert/strict";
import { cp, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { TINY_GUIDED } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";
import { didiHere } from "./support.ts";

const root = scratch("verify");
const file = join(root, "receipt.json");

const RECEIPT = {
  model: "stories-didi",
  model_sha256: "0".repeat(64),
  precision: "fp32",
  provider: "cpu",
  request: { prompt_tokens: [1], length: 4, seed: 1, steps: 1 },
  trace_sha256: "0".repeat(64),
};

async function verify(content: object, ...args: string[]) {
  await writeFile(file, JSON.stringify(content));
  return didiHere(["verify", file, "--device", "cpu", "--threads", "1", ...args]);
}

/** Characters that move the cursor, hide text or break a line. */
const HOSTILE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

for (const model of ["../../etc", "/etc", ".", "..", "a/b", "a\\b", "", "\u001b[2Jx", "x\u202ey"])
  test(`a receipt that names ${JSON.stringify(model)} opens nothing`, async () => {
    const { code, stdout, stderr } = await verify({ ...RECEIPT, model });
    assert.equal(code, 2);
    assert.equal(stdout, "");
    assert.match(stderr, /^didi-serve: "[^\n]*" in the receipt is not a valid model name[^\n]*--model\n$/);
    assert.doesNotMatch(stderr.trimEnd(), HOSTILE);
  });

test("a model of another sha256 is not loaded", async () => {
  // Loading it would report that it is damaged.
  const folder = join(root, "model");
  await cp(TINY_GUIDED, folder, { recursive: true });
  await truncate(join(folder, "denoise.fp32.onnx"), 100);
  const { code, stdout, stderr } = await verify({ ...RECEIPT, model: "x\u001b[1A" }, "--model", folder);
  assert.equal(stderr, "");
  assert.equal(code, 1);
  assert.match(stdout, /^differs: the sha256 of x\\u\{1b\}\[1A is [^\n]*this is another model[^\n]*\n$/);
});

test("a receipt of a precision that the model lacks differs", async () => {
  const { code, stdout } = await verify({ ...RECEIPT, model: "stories-mdlm", precision: "int8" });
  assert.deepEqual(
    [code, /^differs: the receipt is of int8, and this model has no int8 graphs/.test(stdout)],
    [1, true],
  );
});

for (const [name, content] of Object.entries({
  "a field of a name with control characters": { ...RECEIPT, "\u001b]0;x\u0007": 1 },
  "samples that are none": { receipt: RECEIPT, samples: "x" },
  "tokens that are text": {
    receipt: RECEIPT,
    samples: [{ sample: 0, text: "", tokens: ["\u001b[2J"], finish_reason: "length" }],
  },
}))
  test(`${name} are refused in one line without them`, async () => {
    const { code, stdout, stderr } = await verify(content);
    assert.equal(code, 2, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /^didi-serve: [^\n]*neither a receipt nor an answer with one[^\n]*\n$/);
    assert.doesNotMatch(stderr.trimEnd(), HOSTILE);
  });
