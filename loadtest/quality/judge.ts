/** What judges, which are causal language models in Python, say of samples. */

import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StartupError } from "../../src/errors.ts";
import { modelFolder } from "../../src/model/model.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import type { Samples, Setting } from "./sample.ts";

/** What the judges say of a setting, as `training/didi/tools/judge.py` writes it. */
export interface Judged {
  entropy: number;
  /** Shares of 1. */
  words: Record<"known" | "pairs" | "triples" | "distinct" | "repeated" | "unique", number>;
  /** By each judge; differences are to the first setting, of samples with the same seed. */
  judges: {
    perplexity: number;
    interval: [number, number];
    /** Mean difference of nats a token, and its standard error. */
    difference?: [number, number];
  }[];
}

/**
 * Return what the judges in Python say of each setting's samples, which the program provides itself where
 * there are none. Throws StartupError if they do not run.
 */
export function judged(
  settings: readonly Setting[],
  all: readonly (Samples | undefined)[],
  { python, judge, model }: { python: string; judge: readonly string[]; model: string },
): readonly Judged[] {
  const folder = mkdtempSync(join(tmpdir(), "didi-quality-"));
  try {
    const [samples, out] = [join(folder, "samples.json"), join(folder, "judged.json")];
    writeFileSync(samples, JSON.stringify(settings.map((setting, i) => all[i]?.tokens ?? setting)));
    const tokenizer = join(modelFolder(model), "tokenizer.json");
    const args = ["-P", "-m", "didi.tools.judge", samples, "--tokenizer", tokenizer, "--out", out];
    const env = { ...process.env, PYTHONPATH: join(PACKAGE_ROOT, "training") };
    const { status, stderr, error } = spawnSync(python, [...args, "--judge", ...judge], {
      env,
      encoding: "utf8",
    });
    if (status !== 0)
      throw new StartupError(`the judge does not run (--python): ${error?.message ?? stderr.trim()}`);
    return JSON.parse(readFileSync(out, "utf8")) as Judged[];
  } finally {
    rmSync(folder, { recursive: true });
  }
}
