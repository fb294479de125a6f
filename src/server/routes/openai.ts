/** `/v1`: OpenAI's completions and chat APIs. */

import type { FastifyInstance } from "fastify";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import type { ServedModel } from "../../engine/models/served-model.ts";
import { rewardsOf } from "../../model/manifest.ts";
import type { Admission } from "../access/admission.ts";
import { noRoute, sendAs } from "../listener/refuse.ts";
import { answer, CHAT, COMPLETION } from "../openai/answer.ts";
import { checkChat, completionOf } from "../openai/chat.ts";
import type { Schemas } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";
import { closing } from "../streaming/cancellation.ts";

export async function openaiRoutes(app: FastifyInstance, { admission }: { admission: Admission }) {
  const { models } = admission;
  app.setErrorHandler(sendAs(COMPLETION.errorOf));
  app.setNotFoundHandler(noRoute);
  app.get(
    "/models",
    { schema: schemaOf("models") },
    async (): Promise<Schemas["ModelList"]> => ({
      object: "list",
      data: models.models.map((model) => cardOf(model, models)),
    }),
  );
  app.get<{ Params: { model: string } }>(
    "/models/:model",
    { schema: schemaOf("modelByName") },
    async ({ params }) => cardOf(models.find(params.model), models),
  );
  app.post<{ Body: Schemas["CompletionRequest"]; Reply: Schemas["CompletionResponse"] }>(
    "/completions",
    { schema: schemaOf("completions") },
    async (request, reply) =>
      admission.use(request, request.body.model, closing(reply.raw), (submission) =>
        answer(COMPLETION, submission, request.body, request, reply),
      ),
  );
  app.post<{ Body: Schemas["ChatRequest"]; Reply: Schemas["ChatResponse"] }>(
    "/chat/completions",
    {
      schema: schemaOf("chatCompletions"),
      errorHandler: sendAs(CHAT.errorOf),
      // Before the messages are checked: what is wrong with them does not matter.
      preValidation: async ({ body }) => {
        const { model } = (body ?? {}) as { model?: unknown };
        checkChat(models.find(typeof model === "string" ? model : undefined).description.manifest);
      },
    },
    async (request, reply) =>
      admission.use(request, request.body.model, closing(reply.raw), (submission) =>
        answer(CHAT, submission, completionOf(request.body, submission.engine.model), request, reply),
      ),
  );
}

/** Describe a model. */
function cardOf(
  { description, name, state, engine }: ServedModel,
  models: ModelRegistry,
): Schemas["ModelCard"] {
  const { manifest, precision } = description;
  return {
    id: name,
    object: "model",
    created: 0,
    owned_by: "didi-serve",
    max_model_len: manifest.context_length,
    chat: manifest.chat !== undefined,
    rewards: rewardsOf(manifest).map(({ name }) => name),
    precision: precision[engine?.pool.provider ?? models.provider],
    state,
  };
}
