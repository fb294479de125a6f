/** CUDA for workers: where its libraries are, and why it does not load. */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";

const ONNXRUNTIME = join(createRequire(import.meta.url).resolve("onnxruntime-node"), "..", "..");

/** Paths of CUDA in a folder of onnxruntime-node. */
export interface CudaFiles {
  /** Folder of ONNX Runtime's library and of its CUDA provider. */
  binaries: string;
  /** Folder of the CUDA and cuDNN libraries (`npm run cuda -- --with-libraries`). */
  libraries: string;
  /** JSON file with a CudaWheel. */
  about: string;
}

/**
 * Return the paths that `npm run cuda` writes to. `folder` defaults to the onnxruntime-node that the server
 * uses.
 */
export const cudaFiles = (folder: string = ONNXRUNTIME): CudaFiles => ({
  binaries: join(folder, "bin", "napi-v6", process.platform, process.arch),
  libraries: join(folder, "cuda"),
  about: join(folder, "cuda.json"),
});

/** Metadata of the wheel that the provider came from. */
export interface CudaWheel {
  /** Version of onnxruntime-gpu. */
  version: string;
  /** CUDA version that the provider is built for, such as 13.0. */
  cuda: string | null;
  /** Requirements with the libraries, in the syntax of pip. */
  requires: string[];
}

const PROVIDER = "libonnxruntime_providers_cuda.so";
const DRIVER = "libcuda.so.1";
const LOADER = "/lib64/ld-linux-x86-64.so.2";

/**
 * Return the environment of a worker: `env` with the CUDA libraries on the library path, and without TF32,
 * which would round the factors of products in float32 to 10 bits.
 */
export function cudaEnvironment(
  env: NodeJS.ProcessEnv = process.env,
  files = cudaFiles(),
): NodeJS.ProcessEnv {
  const exact = { NVIDIA_TF32_OVERRIDE: "0", ...env };
  if (!existsSync(files.libraries)) return exact;
  const path = [env.LD_LIBRARY_PATH, files.libraries].filter(Boolean).join(delimiter);
  return { ...exact, LD_LIBRARY_PATH: path };
}

/**
 * Return a line for each GPU that nvidia-smi lists: name, driver version, memory. None without nvidia-smi.
 */
export function listGpus(): string[] {
  try {
    const query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"];
    return execFileSync("nvidia-smi", query, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
      .trim()
      .split("\n")
      .filter((line) => line !== "");
  } catch {
    return [];
  }
}

/** Why CUDA does not load. */
export type CudaFault = "provider" | "library" | "driver" | "driver-old" | "device" | "memory" | "other";

/** What is installed of CUDA. */
export interface CudaState {
  /** True if the provider is installed. */
  provider: boolean;
  /** Libraries that the provider needs and the loader cannot find. */
  missing: string[];
  /** Version of the driver, if its library is found and has one in its name. */
  driver?: string | undefined;
  /** CUDA version that the provider needs, if known. */
  needed?: string | undefined;
  /** Index of the GPU that was asked for. */
  gpu?: number | undefined;
}

function readWheel(path: string): Partial<CudaWheel> {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return {};
  }
}

/** Return the path of each library that a library needs, by name; undefined for a missing one. */
function librariesOf(path: string, env: NodeJS.ProcessEnv): Map<string, string | undefined> {
  const text = execFileSync(LOADER, [path], {
    env: { ...env, LD_TRACE_LOADED_OBJECTS: "1" },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const lines = text.matchAll(/^\s*(\S+) => (not found|\S+)/gm);
  return new Map(Array.from(lines, ([, name, found]) => [name!, found === "not found" ? undefined : found]));
}

/** Look for the provider, its libraries and the driver, as the loader would with this environment. */
export function lookForCuda(env: NodeJS.ProcessEnv = cudaEnvironment(), files = cudaFiles()): CudaState {
  const path = join(files.binaries, PROVIDER);
  const needed = readWheel(files.about).cuda ?? undefined;
  if (!existsSync(path) || !existsSync(LOADER)) return { provider: existsSync(path), missing: [], needed };
  let found: ReturnType<typeof librariesOf>;
  try {
    found = librariesOf(path, env);
  } catch {
    return { provider: true, missing: [], needed };
  }
  const missing = [...found].filter(([, file]) => file === undefined).map(([name]) => name);
  const library = found.get(DRIVER);
  // The driver's library is a link to a file with its version in its name.
  const driver = library && realpathSync(library).match(/\.so\.(\d[\d.]*\.\d+)$/)?.[1];
  const runtime = [...found.keys()].map((name) => name.match(/^libcudart\.so\.(\d+)/)?.[1]).find(Boolean);
  return { provider: true, missing, driver, needed: needed ?? runtime };
}

/** Classify an error message of ONNX Runtime, given what is installed. */
export function cudaFault(message: string, { provider, missing }: CudaState): CudaFault {
  if (/CUDA failure 2\b|out of memory|failed to allocate memory/i.test(message)) return "memory";
  if (/CUDA failure (35|803|804)\b|driver version is insufficient/.test(message)) return "driver-old";
  if (/CUDA failure (100|101)\b|no CUDA-capable device|invalid device ordinal/.test(message)) return "device";
  if (!provider) return "provider";
  if (missing.some((name) => name !== DRIVER)) return "library";
  if (missing.includes(DRIVER)) return "driver";
  return "other";
}

/**
 * Return in one line why CUDA does not load and what to do.
 *
 * @param message error message of ONNX Runtime
 */
export function explainCuda(message: string, state: CudaState = lookForCuda()): string {
  const needed = state.needed ? `CUDA ${state.needed}` : "the provider's CUDA version";
  const libraries = state.missing.filter((name) => name !== DRIVER).join(", ");
  switch (cudaFault(message, state)) {
    case "memory":
      return (
        "the GPU has not enough free memory for the model: stop other programs on it (see nvidia-smi), " +
        "use --precision fp16, or use --device cpu"
      );
    case "driver-old":
      return (
        `the NVIDIA driver is too old: ${needed} is needed, the driver found is ` +
        `${state.driver ?? "older"}: ` +
        "install a newer driver, or use --device cpu"
      );
    case "device":
      return (
        `the NVIDIA driver finds no GPU${state.gpu ? ` ${state.gpu}` : ""}: ` +
        "check nvidia-smi and CUDA_VISIBLE_DEVICES, " +
        "start a container with --gpus all, or use --device cpu"
      );
    case "provider":
      return (
        "ONNX Runtime's CUDA provider is not installed: " +
        "run `npm run cuda -- --with-libraries` (Linux on x64 only), or use --device cpu"
      );
    case "library":
      return (
        `CUDA libraries are missing (${libraries}): run \`npm run cuda -- --with-libraries\`, ` +
        `put those of ${needed} on LD_LIBRARY_PATH, or use --device cpu`
      );
    case "driver":
      return (
        `there is no NVIDIA driver (${DRIVER} was not found): install one that supports ${needed}, ` +
        "start a container with --gpus all, or use --device cpu"
      );
    case "other":
      return `CUDA does not load (${message}): use --device cpu`;
  }
}
