/** Several small models in one registry. */

import { after } from "node:test";
import { fileURLToPath } from "node:url";
import type { Answer } from "../../src/engine/answers/answer.ts";
import { ResultCache } from "../../src/engine/answers/cache.ts";
import { Engine, type EngineLimits } from "../../src/engine/engine.ts";
import { ModelRegistry, type RegistryOptions } from "../../src/engine/models/registry.ts";
import type { GenerateRequest } from "../../src/engine/request.ts";
import { describeModel, openModel } from "../../src/model/model.ts";
import { WorkerPool } from "../../src/runtime/pool.ts";
import { LIMITS } from "./engine.ts";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

/** Small models with the same vocabulary and other weights. */
export const [PLAIN, MASK, SIGMA] = [fixture("tiny-plain"), fixture("tiny-mask"), fixture("tiny-sigma")];
/** A small model of proteins, with a token for each residue. */
export const PROTEINS = fixture("tiny-proteins");

/**
 * Start a registry in which the first model is loaded, and close it after the file's tests, or after the test
 * that starts it.
 */
export async function startRegistry(
  [first, ...others]: readonly string[],
  options: Partial<RegistryOptions> = {},
  limits: Partial<EngineLimits> = {},
): Promise<ModelRegistry> {
  const all = { ...LIMITS, ...limits };
  const cache = new ResultCache(all.cache);
  const start = async (model: Awaited<ReturnType<typeof openModel>>) => {
    const pool = await WorkerPool.start({ graphs: model.graphs, device: "cpu", threads: 1 });
    return new Engine(model, pool, all, undefined, cache);
  };
  const engine = await start(await openModel(first!, "fp32"));
  await engine.warmUp();
  const described = await Promise.all(others.map((folder) => describeModel(folder, "fp32")));
  const loader = { open: ({ folder }: { folder: string }) => openModel(folder, "fp32"), start };
  const models = new ModelRegistry(engine, described, loader, options);
  after(() => models.close());
  return models;
}

/** Submit a request to a model and resolve with the answer. */
export async function ask(
  models: ModelRegistry,
  name: string,
  asked: GenerateRequest,
  signal = new AbortController().signal,
): Promise<Answer> {
  return models.use(
    models.find(name),
    signal,
    (engine, since) => engine.start(engine.check(asked, false, since)).result,
  );
}
