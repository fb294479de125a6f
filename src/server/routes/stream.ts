/** GET /generate/stream: a WebSocket that streams every denoising step of several requests. */

import type { FastifyInstance } from "fastify";
import { UpgradeRequiredError } from "../../errors.ts";
import { schemaOf } from "../route-schema.ts";
import { StreamSession, type StreamSessionOptions } from "../streaming/session.ts";

export async function streamRoute(app: FastifyInstance, options: StreamSessionOptions) {
  app.route({
    method: "GET",
    url: "/generate/stream",
    config: { access: "socket" },
    schema: schemaOf("stream"),
    handler: async () => {
      throw new UpgradeRequiredError(
        "open this address as a WebSocket, or POST /generate for a single answer",
      );
    },
    wsHandler: (socket, request) => void new StreamSession(socket, request, options),
  });
}
