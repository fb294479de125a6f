/** POST /tokenize and /detokenize: texts and conversations as token ids, and back. */

import type { FastifyInstance } from "fastify";
import type { Engine } from "../../engine/engine.ts";
import { InvalidRequestError } from "../../errors.ts";
import { checkModel } from "../model-name.ts";
import { conversationIds } from "../openai/chat.ts";
import type { Schemas } from "../openapi.ts";
import { schemaOf } from "../route-schema.ts";

/** Most ids of an answer: a text may have this many characters. */
const MOST_TOKENS = 65_536;

const refuse = (path: string, message: string, tooLarge = false) =>
  new InvalidRequestError([{ path, message }], tooLarge);

export async function tokenizeRoutes(app: FastifyInstance, { engine }: { engine: Engine }) {
  const { tokenizer, manifest } = engine.model;
  const { name, context_length: max_model_len, vocab_size } = manifest;

  /** Return the ids of a request. Throws InvalidRequestError, or NotFoundError for a model without chat. */
  function idsOf({ prompt, messages }: Schemas["TokenizeRequest"]): number[] {
    if ((prompt === undefined) === (messages === undefined))
      throw refuse("/prompt", "or /messages must be given, and not both");
    if (messages) return conversationIds(messages, engine.model, MOST_TOKENS);
    const ids = tokenizer.encode(prompt!, MOST_TOKENS);
    if (ids && ids.length <= MOST_TOKENS) return ids;
    throw refuse("/prompt", `has more than ${MOST_TOKENS} tokens: divide it`, true);
  }

  app.post<{ Body: Schemas["TokenizeRequest"]; Reply: Schemas["TokenizeResponse"] }>(
    "/tokenize",
    { schema: schemaOf("tokenize") },
    async ({ body }) => {
      checkModel(body.model ?? name, engine);
      const tokens = idsOf(body);
      return { tokens, count: tokens.length, max_model_len };
    },
  );
  app.post<{ Body: Schemas["DetokenizeRequest"]; Reply: Schemas["DetokenizeResponse"] }>(
    "/detokenize",
    { schema: schemaOf("detokenize") },
    async ({ body }) => {
      checkModel(body.model ?? name, engine);
      const { tokens } = body;
      const wrong = tokens.findIndex((id) => id >= vocab_size);
      if (wrong >= 0)
        throw refuse(
          `/tokens/${wrong}`,
          `must be below the ${vocab_size} ids of ${name}, and is ${tokens[wrong]}`,
        );
      return { prompt: tokenizer.decode(tokens, {}, true) };
    },
  );
}
