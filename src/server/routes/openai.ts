/** `/v1`: OpenAI's completions and chat APIs. */

import type { FastifyInstance } from "fastify";
import type { Engine } from "../../engine/engine.ts";
import type { Admission } from "../access/admission.ts";
import { noRoute, sendAs } from "../listener/refuse.ts";
import { checkModel } from "../model-name.ts";
import { answer, CHAT, COMPLETION } from "../openai/answer.ts";
import { chatOf, completionOf } from "../openai/chat.ts";
import type { Schemas } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";

export async function openaiRoutes(
  app: FastifyInstance,
  { engine, admission }: { engine: Engine; admission: Admission },
) {
  const { manifest, precision, chat } = engine.model;
  const card = (): Schemas["ModelCard"] => ({
    id: manifest.name,
    object: "model",
    created: 0,
    owned_by: "didi-serve",
    max_model_len: manifest.context_length,
    chat: chat !== undefined,
    rewards: manifest.graphs.score ? ["discriminator"] : [],
    precision: precision[engine.pool.provider],
  });

  app.setErrorHandler(sendAs(COMPLETION.errorOf));
  app.setNotFoundHandler(noRoute);
  app.get(
    "/models",
    { schema: schemaOf("models") },
    async (): Promise<Schemas["ModelList"]> => ({ object: "list", data: [card()] }),
  );
  app.get<{ Params: { model: string } }>(
    "/models/:model",
    { schema: schemaOf("modelByName") },
    async ({ params }) => {
      checkModel(params.model, engine);
      return card();
    },
  );
  app.post<{ Body: Schemas["CompletionRequest"]; Reply: Schemas["CompletionResponse"] }>(
    "/completions",
    { schema: schemaOf("completions") },
    async (request, reply) => {
      checkModel(request.body.model, engine);
      return answer(COMPLETION, admission, request.body, request, reply);
    },
  );
  app.post<{ Body: Schemas["ChatRequest"]; Reply: Schemas["ChatResponse"] }>(
    "/chat/completions",
    {
      schema: schemaOf("chatCompletions"),
      errorHandler: sendAs(CHAT.errorOf),
      // Before the messages are checked: what is wrong with them does not matter.
      preValidation: async () => void chatOf(engine.model),
    },
    async (request, reply) => {
      checkModel(request.body.model, engine);
      return answer(CHAT, admission, completionOf(request.body, engine.model), request, reply);
    },
  );
}
