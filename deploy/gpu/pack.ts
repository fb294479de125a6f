/**
 * Pack the device check for a machine without network and without Node: `npm run device-pack`.
 *
 *   npm run device-pack -- [--out FOLDER] [--piece-mb N] [--cuda provider|libraries|none]
 *     [--random FOLDER|none] [--python PROGRAM]
 *
 * Writes pieces of an archive, and two scripts for the other machine: receive.sh takes the pieces as they
 * come and puts them together, check.sh runs the check. The archive holds Node, the server and the check in
 * JavaScript, their packages, the default model, a recipe of a random model of the published size, the
 * training code that the comparison with PyTorch runs, and ONNX Runtime's CUDA provider. `--cuda libraries`
 * adds the CUDA and cuDNN libraries, 1.3 GB; without them those of the other machine are used, PyTorch's
 * wheels included.
 */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { flag, oneOf, PYTHON, script } from "../../loadtest/cli/script.ts";
import { readyRandomModel } from "../../loadtest/device/random-model.ts";
import { copyWithRecipe } from "../../loadtest/device/recipe.ts";
import { integer } from "../../src/cli/parsers.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve");
const HERE = join(PACKAGE_ROOT, "deploy", "gpu");

interface Flags {
  out: string;
  pieceMb: number;
  cuda: "provider" | "libraries" | "none";
  random: string;
  python: string;
}

const run = (program: string, args: string[]) =>
  execFileSync(program, args, { cwd: PACKAGE_ROOT, stdio: ["ignore", "inherit", "inherit"] });

/** Copy what the server and the check need of the checkout. */
function copySources(app: string): void {
  const compiler = join(PACKAGE_ROOT, "node_modules", "typescript", "bin", "tsc");
  run(process.execPath, [compiler, "-p", HERE, "--noCheck", "--outDir", app]);
  for (const name of ["package.json", "openapi.yaml", "LICENSE", "web", "models/model.schema.json"])
    cpSync(join(PACKAGE_ROOT, name), join(app, name), { recursive: true });
  for (const name of ["models/stories-didi", "training/didi"])
    cpSync(join(PACKAGE_ROOT, name), join(app, name), {
      recursive: true,
      filter: (path) => !/\.(svg|csv|pyc)$|__pycache__/.test(path),
    });
  mkdirSync(join(app, "bin"));
  cpSync(process.execPath, join(app, "bin", "node"));
}

/** Copy the packages that are no development dependencies, ONNX Runtime for this platform alone. */
function copyPackages(app: string): void {
  const listed = execFileSync("npm", ["ls", "--omit=dev", "--all", "--parseable"], {
    cwd: PACKAGE_ROOT,
    encoding: "utf8",
  });
  const others = /onnxruntime-node\/bin\/napi-v\d+\/(?!linux(\/x64|$))|libonnxruntime_providers|\.map$/;
  for (const folder of new Set(listed.trim().split("\n").slice(1)))
    cpSync(folder, join(app, relative(PACKAGE_ROOT, folder)), {
      recursive: true,
      filter: (path) => !others.test(path) && !path.includes("onnxruntime-node/cuda"),
    });
}

await script<Flags>(
  "device-pack",
  "Pack the device check into pieces for a machine without network and without Node (Linux on x64).",
  [
    flag("--out <folder>", "folder of the pieces, emptied first", undefined, "results/gpu"),
    flag("--piece-mb <n>", "largest piece, MiB", integer(1, 4096), 56),
    flag(
      "--cuda <what>",
      "provider, libraries (with the provider) or none",
      oneOf(["provider", "libraries", "none"]),
      "provider",
    ),
    flag(
      "--random <folder>",
      "model of random weights, made there with --python if it does not exist; none leaves it out",
      undefined,
      join(CACHE, "random-768x12"),
    ),
    PYTHON,
  ],
  async ({ out, pieceMb, cuda, random, python }) => {
    const stage = mkdtempSync(join(tmpdir(), "didi-pack-"));
    try {
      const app = join(stage, "app");
      copySources(app);
      copyPackages(app);
      if (random !== "none")
        copyWithRecipe(await readyRandomModel(random, python), join(app, "models", "random-768x12"));
      if (cuda !== "none") {
        const into = join(app, "node_modules", "onnxruntime-node");
        const flags = cuda === "libraries" ? ["--with-libraries"] : [];
        run(process.execPath, ["--import", "tsx", "deploy/cuda/main.ts", "--into", into, ...flags]);
      }
      rmSync(out, { recursive: true, force: true });
      mkdirSync(out, { recursive: true });
      for (const name of ["receive.sh", "check.sh"]) cpSync(join(HERE, name), join(out, name));
      // Threads of xz work on blocks of their own, which xz can also unpack side by side.
      const pack = `set -o pipefail
        tar -C "$1" -cf - app | xz -T0 -c | split -b "$2m" -d -a 3 - "$3/app.tar.xz."
        cd "$3" && sha256sum app.tar.xz.* >SHA256SUMS`;
      run("bash", ["-euc", pack, "pack", stage, `${pieceMb}`, out]);
    } finally {
      rmSync(stage, { recursive: true, force: true });
    }
    const pieces = readdirSync(out).filter((name) => name.startsWith("app."));
    const bytes = pieces.reduce((sum, name) => sum + statSync(join(out, name)).size, 0);
    console.log(
      `${pieces.length} pieces in ${out}, ${Math.ceil(bytes / 2 ** 20)} MiB. On the other machine, for each` +
        ` portion:\n  sh receive.sh FOLDER_OF_THE_PORTION TARGET\nand when all are there:\n` +
        `  sh check.sh TARGET RESULTS --device cuda`,
    );
    return 0;
  },
);
