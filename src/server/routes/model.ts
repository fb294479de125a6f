/** GET /model: the served model and its abilities. */

import type { FastifyInstance } from "fastify";
import type { Engine } from "../../engine/engine.ts";
import type { Schemas } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";

export async function modelRoute(app: FastifyInstance, { engine }: { engine: Engine }) {
  const {
    name,
    description,
    parameters,
    context_length,
    vocab_size,
    end_of_text_token_id,
    guidance,
    quality,
  } = engine.model.manifest;
  const info: Schemas["ModelInfo"] = {
    name,
    description,
    parameters,
    context_length,
    vocab_size,
    end_of_text_token_id,
    ...(guidance && {
      guidance: {
        mode: "rgas",
        scale: [guidance.scale_start, guidance.scale_end],
        candidates: guidance.candidates,
        rerank_ratio: guidance.rerank_ratio,
      },
      guided_temperature: guidance.temperature ?? 1,
    }),
    ...(quality && { quality }),
  };
  app.get("/model", { schema: schemaOf("model") }, async () => info);
}
