/** Starts engines from the settings of the command line. */

import type { FastifyBaseLogger } from "fastify";
import type { Answer } from "../engine/answers/answer.ts";
import type { ResultCache } from "../engine/answers/cache.ts";
import type { SharedCache } from "../engine/answers/shared-cache.ts";
import type { StepListener } from "../engine/answers/step-emitter.ts";
import { choose, scoresOf } from "../engine/choices.ts";
import { Engine, type EngineLimits } from "../engine/engine.ts";
import { ModelRegistry } from "../engine/models/registry.ts";
import type { GenerateRequest, ScoredRow } from "../engine/request.ts";
import type { BatchLimits } from "../engine/scheduling/scheduler.ts";
import { StartupError } from "../errors.ts";
import { describeModel, type Model, openModel } from "../model/model.ts";
import { WorkerPool } from "../runtime/pool.ts";
import type { Device } from "../runtime/protocol.ts";
import { splitOf } from "../runtime/split.ts";
import { gpusOf, kindOf, workersFor } from "./device.ts";
import type { ModelConfig, ServeConfig } from "./options.ts";
import type { Share } from "./share.ts";

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
export async function warmUp(engine: Engine, withRewards = false): Promise<void> {
  try {
    await engine.warmUp(withRewards);
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

/**
 * Start the first model and describe the others, which are loaded on demand; the caller calls `warmUp` with
 * the engine. Throws StartupError for a model that is missing, and for two of the same name.
 */
export async function startModels(
  config: ServeConfig,
  limits: EngineLimits,
  share: Share | undefined,
): Promise<{ models: ModelRegistry; first: Engine }> {
  const { precision, maxLoaded } = config;
  const [name] = config.model as [string];
  const described = await Promise.all(config.model.map((one) => describeModel(one, precision)));
  const names = described.map(({ manifest }) => manifest.name);
  const twice = names.find((one, i) => names.indexOf(one) !== i);
  if (twice !== undefined)
    throw new StartupError(`--model gives ${twice} twice: the models of a server need different names`, 2);
  const first = await startEngine({ ...config, model: name }, limits, config, share?.cacheOf);
  const loader = {
    open: ({ folder }: { folder: string }) => openModel(folder, precision),
    start: (model: Model) => startModel(model, config, limits, config, share?.cacheOf, first.cache),
  };
  const options = maxLoaded === undefined ? {} : { maxLoaded };
  return { models: new ModelRegistry(first, described.slice(1), loader, options), first };
}

/**
 * Log what happens to the models and their workers. Return a function that measures the batches of a model
 * once, while it serves requests; it never rejects.
 */
export function watchModels(
  models: ModelRegistry,
  log: FastifyBaseLogger,
): (engine: Engine) => Promise<void> {
  const isAlone = models.models.length === 1;
  /** What was measured before a model was unloaded, by its name. */
  const known = new Map<string, BatchLimits>();
  const measure = async (engine: Engine) => {
    const { name } = engine.model.manifest;
    const isServed = () => models.accepting && models.engines.includes(engine);
    try {
      const bounds = known.get(name);
      await engine.measureBatches(bounds);
      known.set(name, engine.bounds);
      if (bounds || !isServed()) return;
      const subject = isAlone ? "batches" : `batches of ${name}`;
      log.info(`${subject} hold up to ${engine.bounds.maxTokens} padded tokens`);
    } catch (error) {
      if (!isServed()) return;
      const { maxTokens } = engine.bounds;
      log.warn(`batch size not measured, using ${maxTokens} tokens: ${(error as Error).message}`);
    }
  };
  const watch = ({ pool, model }: Engine) => {
    const own = isAlone ? {} : { model: model.manifest.name };
    pool.on("restart", ({ pid, code, signal, reason }) =>
      log.error(
        { ...own, workerPid: pid, code, signal },
        `worker died (${reason ?? signal ?? code}), starting another`,
      ),
    );
    pool.on("replaced", ({ pid, previous, milliseconds }) =>
      log.warn({ ...own, workerPid: pid, previousPid: previous, ms: milliseconds }, "worker replaced"),
    );
    pool.on("load-failed", (message) => log.error(own, `worker cannot load the model: ${message}`));
  };
  for (const engine of models.engines) watch(engine);
  models.on("engine", watch);
  models.on("loaded", (engine, milliseconds) => {
    log.info({ model: engine.model.manifest.name, ms: Math.round(milliseconds) }, "model loaded");
    void measure(engine);
  });
  models.on("unloaded", ({ name }) => log.info({ model: name }, "model unloaded"));
  models.on("load-failed", ({ name }, error) => log.error({ model: name, err: error }, "model not loaded"));
  return measure;
}
