/**
 * Add CUDA to onnxruntime-node: `npm run cuda`.
 *
 *   npm run cuda -- [--with-libraries] [--from pypi|nuget] [--cache FOLDER] [--into FOLDER]
 *
 * The provider comes out of the wheel `onnxruntime-gpu` of onnxruntime-node's version; --with-libraries adds
 * the CUDA and cuDNN libraries that this wheel asks for, so that a machine needs nothing but a driver. `pip
 * download` fetches the wheels, with the settings of pip on this machine, and checks their hashes. Wheels
 * stay in the cache: what was fetched before is not fetched again. --into names another folder of an
 * onnxruntime-node. --from nuget runs onnxruntime-node's own script, which fetches from NuGet.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type CudaWheel, cudaEnvironment, cudaFiles, lookForCuda } from "../../src/runtime/cuda.ts";
import { readFlags } from "../../test/support/flags.ts";

const UNPACK = fileURLToPath(new URL("./unpack.py", import.meta.url));
const PYTHON = process.env.DIDI_PYTHON ?? "python3";
/** The Python that wheels are chosen for: what is taken out of them depends on none. */
const TARGET_PYTHON = "3.12";
const PLATFORMS = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"];
const LIBRARIES = String.raw`/lib/[^/]+\.so[.\d]*$`;
const PROVIDERS = String.raw`/capi/libonnxruntime_providers_(cuda|shared)\.so$`;

const values = readFlags(
  `npm run cuda -- [flags]
  --with-libraries   add the CUDA and cuDNN libraries too, so that a machine needs nothing but a driver
  --from <source>    pypi or nuget (default pypi)
  --cache <folder>   where wheels are kept
  --into <folder>    another folder of an onnxruntime-node`,
  {
    from: { type: "string", default: "pypi" },
    "with-libraries": { type: "boolean", default: false },
    cache: { type: "string" },
    into: { type: "string" },
  },
);
const cacheHome = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const files = cudaFiles(values.into);
/** The folder of onnxruntime-node. */
const target = dirname(files.about);

/** An error of which the message says all. */
class CudaSetupError extends Error {}

/** Run pip; its progress goes to the terminal. Throw CudaSetupError if it fails. */
function pip(args: string[]): void {
  const { status, error } = spawnSync(PYTHON, ["-m", "pip", ...args], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (error) throw new CudaSetupError(`${PYTHON} does not run (${error.message}): install Python 3 with pip`);
  if (status !== 0)
    throw new CudaSetupError(
      "pip could not fetch the wheels: the same command goes on with the first that is missing",
    );
}

/**
 * Fetch wheels with what they need into a folder; those that are there are not fetched again. Returns their
 * paths.
 */
function fetch(requirements: string[], folder: string, flags: string[]): string[] {
  mkdirSync(folder, { recursive: true });
  const platforms = PLATFORMS.map((name) => `--platform=${name}_x86_64`);
  const wanted = [
    "--only-binary=:all:",
    `--python-version=${TARGET_PYTHON}`,
    "--implementation=cp",
    ...platforms,
  ];
  pip(["download", "--disable-pip-version-check", "--dest", folder, ...wanted, ...flags, ...requirements]);
  const wheels = readdirSync(folder).filter((name) => name.endsWith(".whl"));
  wheels.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  // An earlier run may have left an older version: the newest of each package counts.
  const newest = new Map(wheels.map((name) => [name.split("-")[0], join(folder, name)]));
  return [...newest.values()];
}

/** Take libraries out of a wheel. Returns what the wheel says of itself. */
function unpack(wheel: string, pattern: string, folder: string): CudaWheel & { files: string[] } {
  const said = execFileSync(PYTHON, [UNPACK, wheel, pattern, folder], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  return JSON.parse(said);
}

function fromPypi(cache: string, withLibraries: boolean): void {
  const { version } = JSON.parse(readFileSync(join(target, "package.json"), "utf8")) as { version: string };
  const folder = join(cache, version);
  const [wheel] = fetch([`onnxruntime-gpu==${version}`], join(folder, "provider"), ["--no-deps"]);
  const { files: providers, ...about } = unpack(wheel!, PROVIDERS, files.binaries);
  if (providers.length !== 2)
    throw new CudaSetupError(
      `the wheel has no CUDA provider: ${wheel} (${providers.join(", ") || "no library"})`,
    );
  writeFileSync(files.about, `${JSON.stringify(about, null, 2)}\n`);
  console.log(`ONNX Runtime ${version}: CUDA provider for CUDA ${about.cuda ?? "?"} in ${files.binaries}`);
  if (!withLibraries) return;
  const wheels = fetch(about.requires, join(folder, "libraries"), []);
  // Of another version, or of an attempt that was cut off.
  rmSync(files.libraries, { recursive: true, force: true });
  for (const library of wheels) {
    const { files: names } = unpack(library, LIBRARIES, files.libraries);
    console.log(`${names.length} libraries of ${library.split("/").at(-1)}`);
  }
  console.log(`The CUDA libraries are in ${files.libraries}; the server finds them there by itself.`);
}

function fromNuget(): void {
  const script = ["./script/install.js", "--onnxruntime-node-install=cuda12"];
  const { status } = spawnSync(process.execPath, script, { cwd: target, stdio: "inherit" });
  if (status !== 0) throw new CudaSetupError("onnxruntime-node's script failed: try --from pypi");
  // What it says is of another file.
  rmSync(files.about, { force: true });
}

try {
  if (process.platform !== "linux" || process.arch !== "x64")
    throw new CudaSetupError(
      `onnxruntime-node has CUDA for Linux on x64 alone, not for ${process.platform} on ${process.arch}`,
    );
  if (values.from === "nuget") fromNuget();
  else if (values.from === "pypi")
    fromPypi(values.cache ?? join(cacheHome, "didi-serve", "cuda"), values["with-libraries"]);
  else throw new CudaSetupError(`--from is pypi or nuget, not ${values.from}`);
  const missing = lookForCuda(cudaEnvironment(process.env, files), files).missing.filter(
    (name) => name !== "libcuda.so.1",
  );
  if (missing.length > 0)
    console.log(
      `Missing still: ${missing.join(", ")}: put them on LD_LIBRARY_PATH, or add --with-libraries.`,
    );
} catch (error) {
  if (!(error instanceof CudaSetupError)) throw error;
  console.error(`npm run cuda: ${error.message}`);
  process.exit(1);
}
