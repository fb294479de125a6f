/** Samples of several settings, through the engine. */

import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startEngine } from "../../src/cli/start-engine.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { defaultsOf } from "../../src/model/manifest.ts";
import { describeModel } from "../../src/model/model.ts";

/** One setting to measure, a row of the tables. */
export type Setting = {
  name: string;
  /** Line of the picture that it is a point of. */
  series?: string;
} & (Sampled | Written);

/** Samples of a model that is served: fields of a request, and the precision of the graphs. */
interface Sampled {
  request: Partial<GenerateRequest>;
  precision?: "fp32" | "int8";
  /** Another model with the same tokenizer. */
  model?: string;
}

/**
 * What the judge's program provides itself: samples of a causal model, named by its folder, or held-out text,
 * which is openings of stories or windows mixed as in training.
 */
type Written = { request?: never; model?: never } & (
  | { causal: string; temperature: number; top_p?: number }
  | { held_out: "stories" | "windows" }
);

/** Samples of a setting: [N][L] tokens, and what they cost. */
export interface Samples {
  tokens: number[][];
  /** Of the student, the discriminator and its gradient together, for each sample. */
  passes: number;
  /** For each sample, while all are in flight. */
  milliseconds: number;
}

/** What is sampled of every setting. */
export interface SampleConfig {
  model: string;
  samples: number;
  /** Tokens of a sample. */
  length: number;
  /** Folder in which samples are kept. */
  keep?: string;
}

/** Requests in flight. */
const CLIENTS = 16;

/** Run the samples of a setting: seeds 0 to `samples` - 1 on an empty canvas. Rejects if `stop` is aborted. */
async function sample(
  engine: Engine,
  request: Partial<GenerateRequest>,
  { samples, length }: SampleConfig,
  done: () => void,
  stop: AbortSignal,
): Promise<Samples> {
  const tokens: number[][] = [];
  let passes = 0;
  let next = 0;
  const started = performance.now();
  const client = async () => {
    while (next < samples && !stop.aborted) {
      const seed = next++;
      const answer = await engine.submit({ prompt: "", length, steps: 16, ...request, seed }).result;
      tokens[seed] = answer.samples[0]!.tokens;
      const { student_passes, discriminator_passes, gradient_passes } = answer.usage;
      passes += student_passes + discriminator_passes + gradient_passes;
      done();
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  stop.throwIfAborted();
  const milliseconds = (performance.now() - started) / samples;
  return { tokens, passes: passes / samples, milliseconds };
}

/** Start an engine for a setting, run its samples and close the engine. */
async function run(
  { request, precision, model }: Sampled & { model: string },
  config: SampleConfig,
  done: () => void,
  stop: AbortSignal,
): Promise<Samples> {
  const limits = {
    maxBatchTokens: 2048,
    maxActive: CLIENTS,
    maxQueue: CLIENTS,
    cache: { maxBytes: 0, ttlMs: 0 },
  };
  const engine = await startEngine(
    { model, precision: precision ?? "auto", device: "cpu", threads: 0 },
    limits,
  );
  try {
    await engine.warmUp();
    return await sample(engine, request, config, done, stop);
  } finally {
    await engine.pool.close();
  }
}

/**
 * Return the samples of a setting: from the folder `keep` or, unless they are there, newly drawn. Call `done`
 * after each one drawn. Return undefined for a setting without a request. Rejects with StartupError if the
 * model cannot be loaded, and with InvalidRequestError if it refuses the request.
 * If `stop` is aborted, rejects with its reason.
 */
export async function samplesOf(
  setting: Setting,
  config: SampleConfig,
  done: () => void,
  stop: AbortSignal,
): Promise<Samples | undefined> {
  if (!setting.request) return undefined;
  const { keep, samples, length } = config;
  const sampled = { ...setting, model: setting.model ?? config.model };
  if (keep === undefined) return run(sampled, config, done, stop);
  // The model's files and precision, not its name: a model that was made again is another one.
  const { sha256, manifest } = await describeModel(sampled.model, sampled.precision ?? "auto");
  const { request } = sampled;
  const key = JSON.stringify({ model: sha256.cpu, defaults: defaultsOf(manifest), samples, length, request });
  const file = join(keep, `${createHash("sha256").update(key).digest("hex").slice(0, 16)}.json`);
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8")) as Samples;
  const result = await run(sampled, config, done, stop);
  mkdirSync(keep, { recursive: true });
  writeFileSync(file, JSON.stringify(result));
  return result;
}
