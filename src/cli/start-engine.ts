/** Starts an engine from the settings of the command line. */

import type { Answer } from "../engine/answers/answer.ts";
import type { ResultCache } from "../engine/answers/cache.ts";
import type { SharedCache } from "../engine/answers/shared-cache.ts";
import type { StepListener } from "../engine/answers/step-emitter.ts";
import { choose, scoresOf } from "../engine/choices.ts";
import { Engine, type EngineLimits } from "../engine/engine.ts";
import type { GenerateRequest, ScoredRow } from "../engine/request.ts";
import { StartupError } from "../errors.ts";
import { type Model, openModel } from "../model/model.ts";
import { WorkerPool } from "../runtime/pool.ts";
import type { Device } from "../runtime/protocol.ts";
import { splitOf } from "../runtime/split.ts";
import { gpusOf, kindOf, workersFor } from "./device.ts";
import type { ModelConfig, ServeConfig } from "./options.ts";

/** Limits of a command that runs one request. */
export const ONE_AT_A_TIME: EngineLimits = {
  maxBatchTokens: 1,
  maxActive: 1,
  maxQueue: 1,
  cache: { maxBytes: 0, ttlMs: 0 },
};

/** Return the device of the settings; int8 graphs run on the CPU only. Throws StartupError. */
function deviceFor({ device, precision }: Omit<ModelConfig, "model">): Device {
  const kind = kindOf(device);
  if (precision !== "int8") return kind;
  if (kind === "cuda")
    throw new StartupError("--precision int8 runs on the CPU: use --device cpu, or --precision fp16");
  return "cpu";
}

/** Open the model and start its workers, as `startModel` does. */
export async function startEngine(
  config: ModelConfig,
  limits: EngineLimits,
  ...options: OptionsOfStart
): Promise<Engine> {
  return startModel(await openModel(config.model, config.precision), config, limits, ...options);
}

type OptionsOfStart = [
  workers?: Pick<ServeConfig, "workers" | "split">,
  /** Return the cache shared with other servers. */
  share?: (model: Model) => SharedCache | undefined,
  /** The cache shared with other engines of this process. */
  cache?: ResultCache,
];

/** Start the workers of a model; the caller calls `warmUp`. Throws StartupError. */
export async function startModel(
  model: Model,
  config: Omit<ModelConfig, "model">,
  limits: EngineLimits,
  ...[{ workers, split } = { workers: 1, split: 1 }, share, cache]: OptionsOfStart
): Promise<Engine> {
  const { threads } = config;
  const device = deviceFor(config);
  const gpus = gpusOf(config.device);
  const options = {
    graphs: model.graphs,
    device,
    gpus,
    threads,
    split: await splitOf(split, model, threads),
  };
  const pool = await WorkerPool.start(options, workersFor(config.device, workers));
  return new Engine(model, pool, limits, share?.(model), cache);
}

/** Run the model once. If it fails, end the workers and throw StartupError. */
export async function warmUp(engine: Engine): Promise<void> {
  try {
    await engine.warmUp();
  } catch (error) {
    await engine.pool.close();
    throw new StartupError(`${engine.model.folder} does not run: ${(error as Error).message}`);
  }
}

/** Make the choices of a request, then run it. Rejects with what `choose` and the engine throw. */
export async function submitChosen(
  engine: Engine,
  asked: GenerateRequest,
  onStep?: StepListener,
): Promise<Answer> {
  const score = async (scored: ScoredRow[]) => scoresOf(await engine.submit({ scored, steps: 1 }).result);
  const request = await choose(engine.model, asked, score, (longest) => engine.check(longest));
  return engine.submit(request, onStep).result;
}
