/**
 * The peer llama.cpp: a common server of autoregressive models on processors, with the same weights as GGUF.
 */

import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { PACKAGE_ROOT } from "../../../src/package-root.ts";
import { freePort } from "../../../test/support/programs.ts";
import type { SweepConfig } from "../../cli/flags.ts";
import type { SideInfo } from "../../report/types.ts";
import type { PeerSide } from "../side.ts";
import {
  autoregressiveSide,
  BEGINNING,
  countTokens,
  ProgramCrash,
  STORIES_AR,
  startProgram,
} from "./autoregressive.ts";

/** Concurrent requests, and the context of each. */
const [SLOTS, CONTEXT] = [8, 256];

/** Where `npm run loadtest:peers` builds it. */
const BUILT = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve", "peers");

/** What the matrices are held in, and how a report says it. */
const WEIGHTS = {
  f16: "f16 as shipped, matrices f16, the rest f32",
  q8_0: "matrices q8_0 (8 bits, a scale for each 32 weights), the rest f32",
};

/** Start the peer. Reject if its server was not built. */
export async function startLlama(
  { llamaServer }: SweepConfig,
  info: SideInfo,
  type: keyof typeof WEIGHTS,
): Promise<PeerSide> {
  const program = llamaServer ?? join(BUILT, "llama-server");
  if (!existsSync(program))
    throw new Error(
      "llama-server is not there: npm run loadtest:peers builds it, --llama-server names another",
    );
  const folder = mkdtempSync(join(tmpdir(), "didi-gguf-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const gguf = join(folder, "stories-ar.gguf");
  const converter = join(PACKAGE_ROOT, "loadtest", "servers", "peers", "gguf_from_neox.py");
  await promisify(execFile)(join(BUILT, "venv", "bin", "python"), [converter, STORIES_AR, gguf, type]);
  const port = await freePort();
  const origin = `http://127.0.0.1:${port}`;
  const args = ["--model", gguf, "--host", "127.0.0.1", "--port", `${port}`, "--parallel", `${SLOTS}`];
  args.push("--ctx-size", `${SLOTS * CONTEXT}`);
  const start = (more: string[]) =>
    startProgram(program, [...args, ...more], (output) =>
      /server is listening|listening on http/.test(output) ? origin : undefined,
    );
  let kernels = "its default";
  // Its AMX kernels, which need repacked weights, crash with these matrices in q8_0.
  const server = await start([]).catch((error: unknown) => {
    if (!(error instanceof ProgramCrash)) throw error;
    kernels = `of weights that are not repacked (--no-repack), as it ends with ${error.signal} otherwise`;
    return start(["--no-repack"]);
  });
  await healthy(origin);
  const { stdout, stderr } = await promisify(execFile)(program, ["--version"]);
  const version = /version: (.+)/.exec(stdout + stderr)?.[1] ?? "unknown";
  const settings = {
    "llama.cpp": version,
    weights: WEIGHTS[type],
    "requests together": SLOTS,
    "context of each": CONTEXT,
    threads: "its default",
    kernels,
    sampling: "temperature 1, whole vocabulary",
  };
  return autoregressiveSide({ ...info, settings }, server, {
    url: `${origin}/completion`,
    body: ({ shape, seed }) => ({
      ...{ prompt: [BEGINNING], n_predict: shape.length, seed: seed % 2 ** 32, ignore_eos: true },
      ...{ samplers: ["temperature"], temperature: 1, cache_prompt: false, return_tokens: true },
    }),
    read: ({ shape }, body) => countTokens((JSON.parse(body) as { tokens: unknown }).tokens, shape.length),
  });
}

/** Wait until the model is loaded. Reject after 30 seconds. */
async function healthy(origin: string): Promise<void> {
  for (let i = 0; i < 300; i++) {
    const ok = await fetch(`${origin}/health`).then(
      (response) => response.ok,
      () => false,
    );
    if (ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("llama-server does not load the model");
}
