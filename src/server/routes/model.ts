/** GET /model: a served model and its abilities. */

import type { FastifyInstance } from "fastify";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import { invalid } from "../../errors.ts";
import { defaultsOf, type Manifest, rewardsOf } from "../../model/manifest.ts";
import type { Schemas } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";

/** The query of a route that asks about one model. */
export interface NamesModel {
  Querystring: { model?: string | string[] };
}

/** Return the name of the model in a query. Throws InvalidRequestError for more than one. */
export function modelIn({ model }: NamesModel["Querystring"]): string | undefined {
  if (!Array.isArray(model)) return model;
  throw invalid("/query/model", "must be given once");
}

export async function modelRoute(app: FastifyInstance, { models }: { models: ModelRegistry }) {
  app.get<NamesModel>("/model", { schema: schemaOf("model") }, async ({ query }) =>
    infoOf(models.find(modelIn(query)).description.manifest),
  );
}

function infoOf(manifest: Manifest): Schemas["ModelInfo"] {
  const { name, description, parameters, context_length, vocab_size } = manifest;
  const { alphabet, end_of_text_token_id, guidance, quality } = manifest;
  const defaults = defaultsOf(manifest);
  return {
    name,
    description,
    ...(alphabet !== undefined && { alphabet }),
    parameters,
    context_length,
    vocab_size,
    end_of_text_token_id,
    defaults,
    rewards: rewardsOf(manifest),
    ...(guidance && {
      guidance: {
        mode: "rgas",
        scale: [guidance.scale_start, guidance.scale_end],
        candidates: guidance.candidates,
        rerank_ratio: guidance.rerank_ratio,
      },
      guided_temperature: guidance.temperature ?? defaults.temperature,
    }),
    ...(quality && { quality }),
  };
}
