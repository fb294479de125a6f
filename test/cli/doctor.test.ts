import assert from "node:assert/strict";
import { test } from "node:test";
import { dotProducts } from "../../src/model/precision.ts";
import { VERSION } from "../../src/server/openapi.ts";
import { didiHere } from "./support.ts";

test("doctor reports the machine, and where the model runs", async () => {
  const { code, stdout } = await didiHere(["doctor", "--device", "cpu", "--json"]);
  assert.equal(code, 0, stdout);
  const report = JSON.parse(stdout);
  assert.equal(report.versions.didi_serve, VERSION);
  assert.equal(report.versions.node, process.versions.node);
  assert.match(report.versions.onnxruntime_node, /^\d+\.\d+\.\d+$/);
  assert.ok(report.processor.cores >= 1 && report.memory_mb.total > 0);
  assert.equal(typeof report.cuda.provider, "boolean");
  assert.equal(report.runs.device, "cpu");
  assert.equal(report.runs.precision, dotProducts() ? "int8" : "fp32");
  assert.match(report.runs.reason, /--device cpu .*; the processor has /);
  assert.equal(report.fault, undefined);
});

test("a missing model or an unusable device: the reason, and exit 1", async () => {
  const gone = await didiHere(["doctor", "--model", "gone"]);
  assert.equal(gone.code, 1);
  assert.match(gone.stdout, /does not run: .*gone does not exist/);
  assert.match(gone.stdout, /^didi-serve .*\nprocessor: .*\nmemory: .*\nGPUs: .*\nCUDA: /);
  // Hide the GPUs of the machine from the process.
  const cuda = await didiHere(["doctor", "--device", "cuda"], { CUDA_VISIBLE_DEVICES: "" });
  assert.equal(cuda.code, 1);
  assert.match(cuda.stdout, /does not run: .*--device cpu/);
});
