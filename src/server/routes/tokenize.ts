/** POST /tokenize and /detokenize: texts and conversations as token ids, and back. */

import type { FastifyInstance } from "fastify";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import { invalid } from "../../errors.ts";
import type { Model } from "../../model/model.ts";
import { conversationIds } from "../openai/chat.ts";
import type { Schemas } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";

/** Most ids of an answer: a text may have this many characters. */
const MOST_TOKENS = 65_536;

/** Return the ids of a request. Throws InvalidRequestError, or NotFoundError for a model without chat. */
function idsOf({ prompt, messages }: Schemas["TokenizeRequest"], model: Model): number[] {
  if ((prompt === undefined) === (messages === undefined))
    throw invalid("/prompt", "or /messages must be given, and not both");
  if (messages) return conversationIds(messages, model, MOST_TOKENS);
  const ids = model.tokenizer.encode(prompt!, MOST_TOKENS, "/prompt");
  if (ids && ids.length <= MOST_TOKENS) return ids;
  throw invalid("/prompt", `has more than ${MOST_TOKENS} tokens: divide it`, true);
}

export async function tokenizeRoutes(app: FastifyInstance, { models }: { models: ModelRegistry }) {
  app.post<{ Body: Schemas["TokenizeRequest"]; Reply: Schemas["TokenizeResponse"] }>(
    "/tokenize",
    { schema: schemaOf("tokenize") },
    async ({ body }) => {
      const model = await models.open(models.find(body.model));
      const tokens = idsOf(body, model);
      return { tokens, count: tokens.length, max_model_len: model.manifest.context_length };
    },
  );
  app.post<{ Body: Schemas["DetokenizeRequest"]; Reply: Schemas["DetokenizeResponse"] }>(
    "/detokenize",
    { schema: schemaOf("detokenize") },
    async ({ body }) => {
      const { tokenizer, manifest } = await models.open(models.find(body.model));
      const { name, vocab_size } = manifest;
      const { tokens } = body;
      const wrong = tokens.findIndex((id) => id >= vocab_size);
      if (wrong >= 0)
        throw invalid(
          `/tokens/${wrong}`,
          `must be below the ${vocab_size} ids of ${name}, and is ${tokens[wrong]}`,
        );
      return { prompt: tokenizer.decode(tokens, {}, true) };
    },
  );
}
