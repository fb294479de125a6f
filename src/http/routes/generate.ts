/** POST /generate: a prompt in, the finished text out. */

import type { FastifyInstance } from "fastify";
import type { Engine } from "../../engine/engine.ts";
import { type Schemas, valid, validator } from "../openapi.ts";

export async function generateRoute(app: FastifyInstance, { engine }: { engine: Engine }) {
  const validate = validator("GenerateRequest");
  app.post("/generate", async (request, reply): Promise<Schemas["GenerateResponse"]> => {
    const ticket = engine.submit(valid(validate(request.body)));
    // A client that hangs up before its answer frees its rows.
    reply.raw.once("close", ticket.cancel);
    return ticket.result;
  });
}
