import assert from "node:assert/strict";
import { test } from "node:test";
import { StartupError } from "../../src/errors.ts";
import type { GraphFiles } from "../../src/model/manifest.ts";
import { choosePrecision, dotProducts, type PrecisionChoice } from "../../src/model/precision.ts";

const file = { file: "denoise.onnx", sha256: "", bytes: 1 };
const ALL: GraphFiles = { fp32: file, fp16: file, int8: file };

const flags = (...lines: string[]) => lines.map((line) => `processor\t: 0\nflags\t\t: ${line}\n`).join("\n");

test("every processor must have the flag for dot products, as a whole word", () => {
  const of = (cpuinfo: string | undefined) => dotProducts(cpuinfo, "linux", "x64");
  assert.equal(of(flags("fpu avx512bw avx512_vnni")), "avx512_vnni");
  assert.equal(of(flags("fpu avx2 avx_vnni avx_vnni_int8")), "avx_vnni");
  assert.equal(of("processor\t: 0\nFeatures\t: fp asimd asimddp sve\n"), "asimddp");
  assert.equal(of(flags("fpu avx2 avx512bw")), undefined);
  assert.equal(of(flags("fpu avx_vnni_int8")), undefined);
  assert.equal(of(flags("fpu avx_vnni", "fpu avx2")), undefined);
  assert.equal(of("vmx flags\t: avx_vnni\n"), undefined);
  assert.equal(of(""), undefined);
  assert.equal(dotProducts("", "darwin", "arm64"), "asimddp");
  assert.equal(dotProducts("", "darwin", "x64"), undefined);
});

const CHOICES: [
  files: GraphFiles,
  choice: PrecisionChoice,
  dot: string | undefined,
  cpu: string,
  cuda: string,
][] = [
  [ALL, "auto", "avx512_vnni", "int8", "fp16"],
  [ALL, "auto", undefined, "fp32", "fp16"],
  [{ fp32: file, int8: file }, "auto", "asimddp", "int8", "fp32"],
  [{ fp32: file }, "auto", "avx512_vnni", "fp32", "fp32"],
  [{ fp16: file }, "auto", undefined, "fp16", "fp16"],
  [ALL, "fp32", "avx512_vnni", "fp32", "fp32"],
  [ALL, "int8", "avx_vnni", "int8", "int8"],
];

for (const [files, choice, dot, cpu, cuda] of CHOICES)
  test(`${choice} of ${Object.keys(files)}, dot products ${dot}, is ${cpu}, ${cuda} on CUDA`, () => {
    const chosen = choosePrecision("model", files, choice, dot);
    assert.deepEqual([chosen.cpu.precision, chosen.cuda.precision], [cpu, cuda]);
  });

test("the reason names the instruction, or what is missing", () => {
  const reason = (files: GraphFiles, dot?: string) => choosePrecision("model", files, "auto", dot).cpu.reason;
  assert.equal(reason(ALL, "avx_vnni"), "the processor has avx_vnni");
  assert.equal(reason(ALL), "the processor has none of avx512_vnni, avx_vnni, asimddp");
  assert.equal(reason({ fp32: file }, "avx_vnni"), "the model has no int8 graphs");
});

test("int8 is refused without dot products, and a precision that the folder lacks is refused", () => {
  const refuses = (files: GraphFiles, choice: PrecisionChoice, dot: string | undefined, says: RegExp) =>
    assert.throws(
      () => choosePrecision("model", files, choice, dot),
      (error) => error instanceof StartupError && says.test(error.message),
    );
  refuses(
    ALL,
    "int8",
    undefined,
    /int8 cannot run here: the processor has none of avx512_vnni.*use --precision auto or fp32/,
  );
  refuses({ int8: file }, "auto", undefined, /model has only int8 graphs/);
  refuses({ fp32: file }, "int8", "avx_vnni", /model has no int8 graphs: --precision can be fp32/);
});
