/** Engines over the shipped and the small models, and golden vectors. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import type { Remask } from "../../src/diffusion/remask.ts";
import type { Order } from "../../src/diffusion/step.ts";
import { Engine, type EngineLimits } from "../../src/engine/engine.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { InvalidRequestError } from "../../src/errors.ts";
import { openModel } from "../../src/model/model.ts";
import type { PrecisionChoice } from "../../src/model/precision.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import type { Split } from "../../src/runtime/protocol.ts";

export const MODEL = "stories-didi";

/** A shipped model without a discriminator. */
export const TEACHER = "stories-mdlm";

/** A request to the Python reference sampler, with its result. */
export interface GoldenRequest {
  prompt: number[];
  length: number;
  steps: number;
  seed: number;
  temperature: number;
  order?: Order;
  threshold?: number;
  entropy_budget?: number;
  block_length?: number;
  remask?: Remask;
  /** For each step: the positions it masked again; with `remask`. */
  remasked?: number[][];
  /** The whole canvas. */
  tokens: number[];
  /** For each step: [position, token, logprob] of each revealed position. */
  reveals: [number, number, number][][];
}

/** A request to the guided oracle, with its result. */
export interface GoldenGuided extends GoldenRequest {
  guidance: { candidates: number; scale_start: number; scale_end: number; rerank_ratio: number };
  steps_taken: { kind: string; rewards: number[]; chosen: number | null }[];
}

interface Golden {
  encodings: { text: string; ids: number[] }[];
  samples: GoldenRequest[];
  /** Templates with choices, and the joint log-likelihood of each combination of their options. */
  choices: { template: string; scores: number[] }[];
}

/** Golden vectors of the shipped model. */
export const GOLDEN: Golden = JSON.parse(
  readFileSync(new URL(`../golden/${MODEL}.json`, import.meta.url), "utf8"),
);

/** No cache: many tests send a request twice to compute it twice. */
export const LIMITS: EngineLimits = {
  maxBatchTokens: 2048,
  maxActive: 64,
  maxQueue: 256,
  cache: { maxBytes: 0, ttlMs: 0 },
};

/** A request to the oracle of sequential Monte Carlo, with its result. */
export interface GoldenSmc extends Omit<GoldenRequest, "reveals"> {
  particles: number;
  resample_below: number;
  /** Of the discriminator. */
  weight: number;
  chosen: number;
  steps_taken: { rewards: number[]; ess: number; ancestors: number[] | null }[];
}

/** Golden vectors of guided requests, of TINY_GUIDED. */
export const { guided: GUIDED, smc: SMC }: { guided: GoldenGuided[]; smc: GoldenSmc[] } = JSON.parse(
  readFileSync(new URL("../golden/tiny-guided.json", import.meta.url), "utf8"),
);

/** A converted checkpoint of random weights (fixtures/make.ts). */
export const TINY_GUIDED = fileURLToPath(new URL("../fixtures/tiny-guided", import.meta.url));

/** The same checkpoint, converted so that its graphs take sigma and mask_bias. */
export const TINY_STUDENT = fileURLToPath(new URL("../fixtures/tiny-student", import.meta.url));

/** One with a context of 4,096 tokens, without a discriminator. */
export const TINY_LONG = fileURLToPath(new URL("../fixtures/tiny-long", import.meta.url));

/** Every converted checkpoint of random weights: with and without each quirk, and without a discriminator. */
export const FIXTURES = ["plain", "guided", "mask", "sigma", "student"].map((name) =>
  fileURLToPath(new URL(`../fixtures/tiny-${name}`, import.meta.url)),
);

/**
 * Start an engine over a model, by default the shipped one, and warm it up; in float32, which every processor
 * supports. Close it with `engine.pool.close()`.
 */
export async function openEngine(
  limits: Partial<EngineLimits> = {},
  nameOrFolder: string = MODEL,
  workers = 1,
  split?: Split,
  precision: PrecisionChoice = "fp32",
): Promise<Engine> {
  const model = await openModel(nameOrFolder, precision);
  const options = { graphs: model.graphs, device: "cpu" as const, threads: 1, split };
  const pool = await WorkerPool.start(options, workers);
  const engine = new Engine(model, pool, { ...LIMITS, ...limits });
  await engine.warmUp();
  return engine;
}

/** As `openEngine`, and close the engine after the file's tests, or after the test that starts it. */
export async function startEngine(...args: Parameters<typeof openEngine>): Promise<Engine> {
  const engine = await openEngine(...args);
  after(() => engine.pool.close());
  return engine;
}

/** Assert that the engine refuses a request, with an error at `path` that matches `message`. */
export function assertRefused(engine: Engine, request: GenerateRequest, path: string, message: RegExp): void {
  assert.throws(
    () => engine.submit(request),
    (error) => {
      assert.ok(error instanceof InvalidRequestError);
      assert.equal(error.fields[0]!.path, path);
      assert.match(error.fields[0]!.message, message);
      return true;
    },
  );
}
