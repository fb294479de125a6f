/** The machine of a measurement and its current speed. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { arch, cpus, release, totalmem, type } from "node:os";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import type { Environment } from "../report/types.ts";

const require = createRequire(import.meta.url);

function commit(): string | undefined {
  const git = (...args: string[]) =>
    execFileSync("git", args, { cwd: PACKAGE_ROOT, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  try {
    return (
      git("rev-parse", "--short=12", "HEAD").trim() +
      (git("status", "--porcelain", "--untracked-files=no").trim() ? "+" : "")
    );
  } catch {
    return undefined;
  }
}

/** Return machine and versions. */
export function environment(): Environment {
  const version = (name: string) =>
    (JSON.parse(readFileSync(require.resolve(`${name}/package.json`), "utf8")) as { version: string })
      .version;
  const head = commit();
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    memory_bytes: totalmem(),
    platform: `${type()} ${release()} ${arch()}`,
    ...(head && { commit: head }),
    versions: {
      node: process.versions.node,
      "didi-serve": (JSON.parse(readFileSync(`${PACKAGE_ROOT}package.json`, "utf8")) as { version: string })
        .version,
      "onnxruntime-node": version("onnxruntime-node"),
    },
  };
}

/** Return processor, memory, versions and model in one line. */
export function machine(model: string): string {
  const { cores, cpu, memory_bytes, versions } = environment();
  return (
    `${cores} x ${cpu}, ${Math.round(memory_bytes / 1e9)} GB, Node v${versions.node}, ` +
    `onnxruntime-node ${versions["onnxruntime-node"]}, CPU; model ${model}`
  );
}

/** Return the processor seconds of all programs over all cores. */
export function busySeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1000;
}

/**
 * Return the rounds a millisecond of a fixed loop on one core, measured for a few milliseconds: it shows the
 * influence of other programs.
 */
export function machineSpeed(): number {
  const rounds = 1_000_000;
  const times = [1, 2, 3].map((start) => {
    const started = performance.now();
    let word = start;
    for (let i = 0; i < rounds; i++) {
      word ^= word << 13;
      word ^= word >>> 17;
      word ^= word << 5;
    }
    // The result is used, so that the loop is not optimised away.
    return performance.now() - started + (word === 0 ? 1 : 0);
  });
  return rounds / Math.min(...times);
}
