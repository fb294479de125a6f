/**
 * Makes a model folder with random weights of any size, such as the published one, with the training code.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gpt2Tokenizer, tokenizerFromRanks } from "../../src/model/gpt2-tokenizer.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

/** Size of GPT-2's vocabulary with the mask. */
export const GPT2_VOCAB = 50_258;

/** Sizes of a model, and the Python to make it with. */
export interface RandomModel {
  hidden: number;
  blocks: number;
  vocab: number;
  cond: number;
  context: number;
  precisions: readonly string[];
  /** Type of the stored weights: fp16 or fp32. */
  weights?: string;
  python: string;
}

const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;

/** Run a command to its end with its output shown; return the seconds it took. */
async function command(command: string, args: string[], env: Record<string, string> = {}): Promise<number> {
  const started = performance.now();
  const child = spawn(command, args, {
    stdio: "inherit",
    env: { ...process.env, ...env },
    cwd: PACKAGE_ROOT,
  });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${command} ${args.slice(0, 3).join(" ")} ... exited with ${code}`);
  return (performance.now() - started) / 1000;
}

/** Create a random checkpoint with a matching tokenizer, and convert it to a model folder. */
export async function makeRandomModel(
  { vocab, context, precisions, weights = "fp32", python, ...widths }: RandomModel,
  checkpoint: string,
  folder: string,
): Promise<void> {
  const args = ["-P", "-m", "didi.tools.random_checkpoint", "--out", checkpoint, "--vocab", `${vocab}`];
  for (const name of ["hidden", "blocks", "cond"] as const) args.push(`--${name}`, `${widths[name]}`);
  const made = await command(python, args, { PYTHONPATH: join(PACKAGE_ROOT, "training") });
  console.log(`random checkpoint: ${made.toFixed(1)} s\n`);
  // A small vocabulary gets one token for each byte.
  const bytes = Array.from({ length: 256 }, (_, b) => Uint8Array.of(b));
  const tokenizer = vocab >= GPT2_VOCAB ? await gpt2Tokenizer() : tokenizerFromRanks(bytes);
  writeFileSync(join(checkpoint, "tokenizer.json"), JSON.stringify(tokenizer));
  const converting = ["dist/main.js", "model", "convert", "--from", checkpoint, "--out", folder];
  converting.push("--precision", ...precisions, "--weights", weights);
  converting.push("--context", `${context}`, "--python", python);
  const converted = await command(process.execPath, converting);
  const files = readdirSync(folder).map((name) => [name, statSync(join(folder, name)).size] as const);
  const total = files.reduce((sum, [, size]) => sum + size, 0);
  console.log(`\nconversion: ${converted.toFixed(1)} s, folder ${megabytes(total)}`);
}
