/** Faults of CUDA, by the message of ONNX Runtime 1.30 and by what the loader finds. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import {
  type CudaFault,
  type CudaState,
  cudaEnvironment,
  cudaFault,
  cudaFiles,
  explainCuda,
  lookForCuda,
} from "../../src/runtime/cuda.ts";
import { findProgram } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";

const NOT_LOADED = "OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library";
const failure = (text: string) =>
  "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:146 [with ERRTYPE = cudaError; " +
  `bool THRW = true] CUDA failure ${text} ; GPU=-1 ; hostname=vm ; expr=cudaSetDevice(info_.device_id);`;
const THERE: CudaState = { provider: true, missing: [], driver: "535.104.05", needed: "13.0" };

const CASES: [fault: CudaFault, message: string, state: CudaState, explained: RegExp][] = [
  ["provider", NOT_LOADED, { provider: false, missing: [] }, /provider is not installed: run `npm run cuda/],
  [
    "library",
    NOT_LOADED,
    { ...THERE, missing: ["libcublasLt.so.13", "libcurand.so.10", "libcuda.so.1"] },
    /missing \(libcublasLt\.so\.13, libcurand\.so\.10\): run `npm run cuda -- --with-libraries`.*CUDA 13\.0/,
  ],
  [
    "driver",
    NOT_LOADED,
    { ...THERE, missing: ["libcuda.so.1"] },
    /no NVIDIA driver \(libcuda\.so\.1 .*supports CUDA 13\.0.*--gpus all/,
  ],
  [
    "driver-old",
    failure("35: CUDA driver version is insufficient for CUDA runtime version"),
    THERE,
    /too old: CUDA 13\.0 is needed, the driver found is 535\.104\.05/,
  ],
  [
    "device",
    failure("100: no CUDA-capable device is detected"),
    THERE,
    /finds no GPU: .*CUDA_VISIBLE_DEVICES/,
  ],
  [
    "memory",
    "Exception during initialization: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 Failed " +
      "to allocate memory for requested buffer of size 147456",
    THERE,
    /not enough free memory for the model: .*fp16/,
  ],
  [
    "device",
    failure("101: invalid device ordinal"),
    { ...THERE, gpu: 3 },
    /finds no GPU 3: .*CUDA_VISIBLE_DEVICES/,
  ],
  ["memory", failure("2: out of memory"), THERE, /not enough free memory/],
  ["other", "Load model from x.onnx failed: Protobuf parsing failed.", THERE, /Protobuf parsing failed/],
];

for (const [fault, message, state, explained] of CASES)
  test(`${fault}: ${message.slice(-60)}`, () => {
    assert.equal(cudaFault(message, state), fault);
    const text = explainCuda(message, state);
    assert.match(text, explained);
    assert.match(text, /--device cpu$/);
    assert.doesNotMatch(text, /\n/);
  });

test("workers multiply in full float32 unless the user allows TF32", () => {
  assert.equal(cudaEnvironment({}).NVIDIA_TF32_OVERRIDE, "0");
  assert.equal(cudaEnvironment({ NVIDIA_TF32_OVERRIDE: "1" }).NVIDIA_TF32_OVERRIDE, "1");
});

test("without the provider the loader is not run", () => {
  const found = lookForCuda({}, cudaFiles(scratch("no-cuda")));
  assert.deepEqual(found, { provider: false, missing: [], needed: undefined });
});

const skip =
  process.platform !== "linux" || process.arch !== "x64"
    ? "the provider is for Linux on x64"
    : !findProgram("gcc") && "without gcc (apt-get install gcc libc6-dev)";
const root = scratch("cuda");

/** Compile an empty shared library that needs others. Return its folder. */
function stub(folder: string, name: string, ...needs: string[]): string {
  const path = join(root, folder);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(root, "empty.c"), "");
  const flags = ["-shared", "-Wl,--no-as-needed", `-Wl,-soname,${name}`, "-o", join(path, name)];
  execFileSync("gcc", [...flags, join(root, "empty.c"), ...needs]);
  return path;
}

test("missing libraries are named, and the version of the driver is read from its library", { skip }, () => {
  const cuda = stub("cuda", "libcublasLt.so.13");
  stub("cuda", "libcudart.so.13");
  const driver = stub("driver", "libcuda.so.535.104.05");
  symlinkSync("libcuda.so.535.104.05", join(driver, "libcuda.so.1"));
  const needs = [
    join(cuda, "libcublasLt.so.13"),
    join(cuda, "libcudart.so.13"),
    join(stub("other", "libcuda.so.1"), "libcuda.so.1"),
  ];
  const provider = stub("provider", "libonnxruntime_providers_cuda.so", ...needs);
  const files = { ...cudaFiles(root), binaries: provider };
  const look = (...folders: string[]) => lookForCuda({ LD_LIBRARY_PATH: folders.join(":") }, files);

  const nothing = look();
  assert.deepEqual(nothing.missing.toSorted(), ["libcublasLt.so.13", "libcuda.so.1", "libcudart.so.13"]);
  assert.equal(cudaFault(NOT_LOADED, nothing), "library");
  assert.deepEqual(look(cuda).missing, ["libcuda.so.1"]);
  assert.equal(cudaFault(NOT_LOADED, look(cuda)), "driver");
  assert.deepEqual(look(cuda, driver).missing, []);
  assert.equal(look(cuda, driver).driver, "535.104.05");
  // Without the wheel's metadata, the major version is that of libcudart.
  assert.match(look(cuda).needed ?? "", /^13/);
});
