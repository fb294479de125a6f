/** From settings to an engine that has run its model once. */

import type { SharedCache } from "../engine/answers/shared-cache.ts";
import { Engine, type EngineLimits } from "../engine/engine.ts";
import { StartupError } from "../errors.ts";
import { type Model, openModel } from "../model/model.ts";
import { WorkerPool } from "../runtime/pool.ts";
import type { Device } from "../runtime/protocol.ts";
import { splitOf } from "../runtime/split.ts";
import type { ModelConfig, ServeConfig } from "./options.ts";

/** Limits of a command that generates once. */
export const ONE_AT_A_TIME: EngineLimits = {
  maxBatchTokens: 1,
  maxActive: 1,
  maxQueue: 1,
  cache: { maxBytes: 0, ttlMs: 0 },
};

/** The device asked for; int8 graphs run on the CPU alone. Throws StartupError. */
function deviceFor({ device, precision }: ModelConfig): Device {
  if (precision !== "int8") return device;
  if (device === "cuda")
    throw new StartupError("--precision int8 runs on the CPU: use --device cpu, or --precision fp16");
  return "cpu";
}

/** Opens the model and starts its workers; `warmUp` is left to the caller. `share` makes the cache shared with other servers. Throws StartupError. */
export async function startEngine(
  config: ModelConfig,
  limits: EngineLimits,
  { workers, split }: Pick<ServeConfig, "workers" | "split"> = { workers: 1, split: 1 },
  share?: (model: Model) => SharedCache | undefined,
): Promise<Engine> {
  const model = await openModel(config.model, config.precision);
  const { threads } = config;
  const device = deviceFor(config);
  const options = { graphs: model.graphs, device, threads, split: await splitOf(split, model, threads) };
  const pool = await WorkerPool.start(options, workers);
  return new Engine(model, pool, limits, share?.(model));
}

/** Runs the model once. Throws StartupError if it cannot, with the worker ended. */
export async function warmUp(engine: Engine): Promise<void> {
  try {
    await engine.warmUp();
  } catch (error) {
    await engine.pool.close();
    throw new StartupError(`${engine.model.folder} does not run: ${(error as Error).message}`);
  }
}
