/** The models of a server, from the settings of the command line. */

import type { FastifyBaseLogger } from "fastify";
import type { Engine, EngineLimits } from "../engine/engine.ts";
import { ModelRegistry } from "../engine/registry.ts";
import type { BatchLimits } from "../engine/scheduling/scheduler.ts";
import { StartupError } from "../errors.ts";
import { describeModel, openModel } from "../model/model.ts";
import type { ServeConfig } from "./options.ts";
import type { Share } from "./share.ts";
import { startEngine, startModel } from "./start-engine.ts";

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
    start: (model: Parameters<typeof startModel>[0]) =>
      startModel(model, config, limits, config, share?.cacheOf, first.cache),
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
      if (bounds) engine.bounds = bounds;
      else await engine.measureBatches();
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
