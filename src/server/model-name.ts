/** The name of a model in a request. */

import type { Engine } from "../engine/engine.ts";
import { NotFoundError } from "../errors.ts";

/** Throw NotFoundError if another model is served. */
export function checkModel(model: string, engine: Engine): void {
  const { name } = engine.model.manifest;
  if (model !== name) throw new NotFoundError(`the model ${model} is not served here: it is ${name}`);
}
