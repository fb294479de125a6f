/**
 * ONNX Runtime's real CUDA provider on a machine without a GPU: each way to fail, and, with CUDA libraries
 * that do nothing, on which device it places the operators of the graphs.
 */

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { type CudaFault, cudaFault, cudaFiles, explainCuda, lookForCuda } from "../../src/runtime/cuda.ts";
import { skipWithout } from "../deploy/support.ts";
import { MODEL } from "../support/engine.ts";
import { fakeCuda } from "../support/fake-cuda.ts";
import { scratch } from "../support/scratch.ts";

const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve", "cuda");
const required = process.env.DIDI_REQUIRE_DEPLOY?.split(" ").includes("cuda");
const skip =
  (!required && !existsSync(CACHE) && "without the wheel of the provider, 247 MB (npm run cuda)") ||
  skipWithout("gcc", "nm");

const root = scratch("cuda-full");
const onnxruntime = join(root, "node_modules", "onnxruntime-node");
const files = cudaFiles(onnxruntime);
const fake = join(root, "fake");
const PROVIDER = join(files.binaries, "libonnxruntime_providers_cuda.so");
const LOAD = join(root, "load.mjs");

before(() => {
  if (skip) return;
  const packages = join(PACKAGE_ROOT, "node_modules");
  cpSync(join(packages, "onnxruntime-common"), join(root, "node_modules", "onnxruntime-common"), {
    recursive: true,
  });
  mkdirSync(files.binaries, { recursive: true });
  for (const name of ["dist", "package.json"])
    cpSync(join(packages, "onnxruntime-node", name), join(onnxruntime, name), { recursive: true });
  for (const name of ["libonnxruntime.so.1", "onnxruntime_binding.node"])
    cpSync(join(cudaFiles().binaries, name), join(files.binaries, name));
  writeFileSync(
    LOAD,
    `import ort from "onnxruntime-node";
const [path, verbose] = process.argv.slice(2);
ort.env.logLevel = verbose ? "verbose" : "fatal";
const options = { executionProviders: ["cuda"], logSeverityLevel: verbose ? 0 : 4 };
try {
  await ort.InferenceSession.create(path, options);
} catch (error) {
  console.log(error.message);
}
`,
  );
});

const graph = (name: string, precision = "fp16") =>
  join(PACKAGE_ROOT, "models", MODEL, `${name}.${precision}.onnx`);

/** Return the output of loading a graph on CUDA; empty if it loads and the log is not verbose. */
function load(env: Record<string, string>, path = graph("denoise"), verbose = false): string {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [LOAD, path, ...(verbose ? ["verbose"] : [])],
    { encoding: "utf8", env: { PATH: process.env.PATH, ...env }, maxBuffer: 1 << 28 },
  );
  assert.equal(status, 0, stderr);
  return stdout + stderr;
}

/** Check the fault and the explanation of a failed load. */
function assertFault(env: Record<string, string>, fault: CudaFault, explained: RegExp): void {
  const message = load(env);
  const state = lookForCuda(env, files);
  assert.equal(cudaFault(message, state), fault, message);
  assert.match(explainCuda(message, state), explained);
}

test("provider missing", { skip }, () => assertFault({}, "provider", /npm run cuda/));

test("npm run cuda installs the provider from the wheel of onnxruntime-node's version", { skip }, () => {
  const said = execFileSync(
    process.execPath,
    ["--import", "tsx", "deploy/cuda/main.ts", "--into", onnxruntime],
    { cwd: PACKAGE_ROOT, encoding: "utf8" },
  );
  assert.match(said, /CUDA provider for CUDA \d+\.\d+ in /);
  assert.match(said, /Missing still: .*libcudart\.so\.\d+/);
  assert.ok(existsSync(PROVIDER));
  fakeCuda(PROVIDER, fake);
});

test("CUDA libraries missing", { skip }, () =>
  assertFault({}, "library", /libcublas\.so\.\d+.*--with-libraries/),
);

test("driver missing", { skip }, () => {
  const folder = join(root, "no-driver");
  cpSync(fake, folder, { recursive: true });
  rmSync(join(folder, "libcuda.so.1"));
  assertFault({ LD_LIBRARY_PATH: folder }, "driver", /supports CUDA \d+\.\d+/);
});

test("driver too old, with its version", { skip }, () => {
  const folder = join(root, "old-driver");
  cpSync(fake, folder, { recursive: true });
  cpSync(join(folder, "libcuda.so.1"), join(folder, "libcuda.so.535.104.05"));
  rmSync(join(folder, "libcuda.so.1"));
  symlinkSync("libcuda.so.535.104.05", join(folder, "libcuda.so.1"));
  const env = { LD_LIBRARY_PATH: folder, FAKE_SET_DEVICE: "35" };
  assertFault(env, "driver-old", /CUDA \d+\.\d+ is needed, the driver found is 535\.104\.05/);
});

test("no device", { skip }, () =>
  assertFault({ LD_LIBRARY_PATH: fake, FAKE_SET_DEVICE: "100" }, "device", /finds no GPU/),
);

test("out of device memory at load", { skip }, () =>
  assertFault({ LD_LIBRARY_PATH: fake, FAKE_MALLOC: "2" }, "memory", /not enough free memory/),
);

test("each listed GPU has a worker, and one that there is not is named", { skip }, () => {
  for (const name of readdirSync(join(PACKAGE_ROOT, "node_modules")))
    if (!existsSync(join(root, "node_modules", name)))
      symlinkSync(join(PACKAGE_ROOT, "node_modules", name), join(root, "node_modules", name));
  // A copy of the sources finds the onnxruntime-node of this test.
  for (const name of ["src", "package.json", "models/model.schema.json", `models/${MODEL}`])
    cpSync(join(PACKAGE_ROOT, name), join(root, name), { recursive: true });
  const start = join(root, "start.ts");
  writeFileSync(
    start,
    `import { gpusOf } from "./src/cli/device.ts";
import { openModel } from "./src/model/model.ts";
import { WorkerPool } from "./src/runtime/pool.ts";
const gpus = gpusOf(process.argv[2]);
const { graphs } = await openModel("${MODEL}");
try {
  const pool = await WorkerPool.start({ graphs, device: "cuda", gpus, threads: 1 }, gpus.length);
  console.log(JSON.stringify(pool.pids));
  await pool.close();
} catch (error) {
  console.log(error.message);
}
`,
  );
  const log = join(root, "devices");
  const run = (device: string) => {
    rmSync(log, { force: true });
    const env = { PATH: process.env.PATH, LD_LIBRARY_PATH: fake, FAKE_GPUS: "3", FAKE_LOG: log };
    return execFileSync(process.execPath, ["--import", "tsx", start, device], {
      cwd: root,
      encoding: "utf8",
      env,
    });
  };
  const pids = JSON.parse(run("cuda:2,1")) as number[];
  const chosen = new Map(
    readFileSync(log, "utf8")
      .trim()
      .split("\n")
      .map((line) => line.split(" ").map(Number) as [number, number]),
  );
  assert.deepEqual(
    pids.map((pid) => chosen.get(pid)),
    [2, 1],
  );
  assert.match(run("cuda:0,7"), /the NVIDIA driver finds no GPU 7: /);
});

/** Operators on shapes: they run on the host by design, on 8-byte integers. */
const OF_SHAPES = new Set([
  "Shape",
  "Squeeze",
  "Unsqueeze",
  "Concat",
  "Gather",
  "Slice",
  "Cast",
  "Mul",
  "Add",
]);

for (const precision of ["fp16", "fp32"])
  for (const name of ["denoise", "tilt", "score"])
    test(`every operator of ${name} in ${precision} has a CUDA kernel`, { skip }, () => {
      const log = load({ LD_LIBRARY_PATH: fake }, graph(name, precision), true);
      const [, cpu = "", cuda = ""] =
        log.match(
          /placed on \[CPUExecutionProvider\][^\n]*\n([\s\S]*?)placed on \[CUDAExecutionProvider\]([\s\S]*)/,
        ) ?? [];
      const operators = (text: string) =>
        Array.from(text.matchAll(/ToAnEp\]\s+(\w+) \(([^)]*)\)/g), ([, operator, node]) => ({
          operator,
          node,
        }));
      assert.ok(operators(cuda).length > 100, log.slice(-2000));
      assert.deepEqual(
        operators(cpu).filter(({ operator }) => !OF_SHAPES.has(operator!)),
        [],
      );
      // One number about shapes is copied back, and none in the loop over blocks.
      const copies = operators(cuda).filter(({ operator }) => operator!.startsWith("Memcpy"));
      assert.ok(copies.length <= 1, JSON.stringify(copies));
    });
