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
import { flag, oneOf, script } from "../../loadtest/cli/script.ts";
import { StartupError } from "../../src/errors.ts";
import { type CudaWheel, cudaEnvironment, cudaFiles, lookForCuda } from "../../src/runtime/cuda.ts";

const UNPACK = fileURLToPath(new URL("./unpack.py", import.meta.url));
const PYTHON = process.env.DIDI_PYTHON ?? "python3";
/** The Python that wheels are chosen for: what is taken out of them depends on none. */
const TARGET_PYTHON = "3.12";
const PLATFORMS = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"];
const LIBRARIES = String.raw`/lib/[^/]+\.so[.\d]*$`;
const PROVIDERS = String.raw`/capi/libonnxruntime_providers_(cuda|shared)\.so$`;

const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve", "cuda");

interface Flags {
  withLibraries: boolean;
  from: "pypi" | "nuget";
  cache: string;
  into?: string;
}
type Files = ReturnType<typeof cudaFiles>;

/** Run pip; its progress goes to the terminal. Throw StartupError if it fails. */
function pip(args: string[]): void {
  const { status, error } = spawnSync(PYTHON, ["-m", "pip", ...args], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (error) throw new StartupError(`${PYTHON} does not run (${error.message}): install Python 3 with pip`);
  if (status !== 0)
    throw new StartupError(
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

function fromPypi(files: Files, cache: string, withLibraries: boolean): void {
  const about = join(dirname(files.about), "package.json");
  const { version } = JSON.parse(readFileSync(about, "utf8")) as { version: string };
  const folder = join(cache, version);
  const [wheel] = fetch([`onnxruntime-gpu==${version}`], join(folder, "provider"), ["--no-deps"]);
  const { files: providers, ...said } = unpack(wheel!, PROVIDERS, files.binaries);
  if (providers.length !== 2)
    throw new StartupError(
      `the wheel has no CUDA provider: ${wheel} (${providers.join(", ") || "no library"})`,
    );
  writeFileSync(files.about, `${JSON.stringify(said, null, 2)}\n`);
  console.log(`ONNX Runtime ${version}: CUDA provider for CUDA ${said.cuda ?? "?"} in ${files.binaries}`);
  if (!withLibraries) return;
  const wheels = fetch(said.requires, join(folder, "libraries"), []);
  // Of another version, or of an attempt that was cut off.
  rmSync(files.libraries, { recursive: true, force: true });
  for (const library of wheels) {
    const { files: names } = unpack(library, LIBRARIES, files.libraries);
    console.log(`${names.length} libraries of ${library.split("/").at(-1)}`);
  }
  console.log(`The CUDA libraries are in ${files.libraries}; the server finds them there by itself.`);
}

function fromNuget(files: Files): void {
  const script = ["./script/install.js", "--onnxruntime-node-install=cuda12"];
  const { status } = spawnSync(process.execPath, script, { cwd: dirname(files.about), stdio: "inherit" });
  if (status !== 0) throw new StartupError("onnxruntime-node's script failed: try --from pypi");
  // What it says is of another file.
  rmSync(files.about, { force: true });
}

await script<Flags>(
  "cuda",
  "Add CUDA to onnxruntime-node.",
  [
    flag(
      "--with-libraries",
      "add the CUDA and cuDNN libraries too, so that a machine needs nothing but a driver",
      undefined,
      false,
    ),
    flag("--from <source>", "pypi or nuget", oneOf(["pypi", "nuget"]), "pypi"),
    flag("--cache <folder>", "where wheels are kept", undefined, CACHE),
    flag("--into <folder>", "another folder of an onnxruntime-node"),
  ],
  async ({ withLibraries, from, cache, into }) => {
    if (process.platform !== "linux" || process.arch !== "x64")
      throw new StartupError(
        `onnxruntime-node has CUDA for Linux on x64 alone, not for ${process.platform} on ${process.arch}`,
      );
    const files = cudaFiles(into);
    if (from === "nuget") fromNuget(files);
    else fromPypi(files, cache, withLibraries);
    const { missing } = lookForCuda(cudaEnvironment(process.env, files), files);
    const named = missing.filter((name) => name !== "libcuda.so.1").join(", ");
    if (named !== "")
      console.log(`Missing still: ${named}: put them on LD_LIBRARY_PATH, or add --with-libraries.`);
    return 0;
  },
);
