/** The face: a Fastify application over an engine. Building it does not listen, so tests can inject. */

import websocket from "@fastify/websocket";
import Fastify, { type FastifyInstance, type FastifyServerOptions, LogController } from "fastify";
import type { Engine } from "../engine/engine.ts";
import { createMetrics } from "./metrics.ts";
import { noRoute, sendAs } from "./problem.ts";
import { generateRoute } from "./routes/generate.ts";
import { inferenceRoutes } from "./routes/inference.ts";
import { modelRoute } from "./routes/model.ts";
import { openaiRoutes } from "./routes/openai.ts";
import { operationsRoutes } from "./routes/operations.ts";
import { playgroundRoutes } from "./routes/playground.ts";
import { referenceRoute } from "./routes/reference.ts";
import { streamRoute } from "./routes/stream.ts";
import { COMPRESSION, keepAlive } from "./socket.ts";

/** Largest body or WebSocket message, bytes. A prompt that fits any context fits in it. */
const MAX_MESSAGE_BYTES = 1024 * 1024;

/** Close code of a WebSocket whose server is going away (RFC 6455). */
const GOING_AWAY = 1001;

const sendProblem = sendAs((problem) => problem, "application/problem+json");

/** Milliseconds between pings of a WebSocket. */
const PING_MS = 30_000;

/** Builds the application. `logger` is Fastify's option; `pingMs` the time between pings of a WebSocket. */
export async function buildApp(
  engine: Engine,
  { pingMs = PING_MS, ...options }: Pick<FastifyServerOptions, "logger"> & { pingMs?: number } = {},
): Promise<FastifyInstance> {
  const app = Fastify({
    ...options,
    bodyLimit: MAX_MESSAGE_BYTES,
    forceCloseConnections: true,
    // Compiling the schemas takes a second, and many on a machine that is busy.
    pluginTimeout: 60_000,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: () => crypto.randomUUID(),
    frameworkErrors: sendProblem,
  });
  app.removeContentTypeParser("text/plain");
  // Before anything is asked of a body that no route would take.
  app.addHook("onRequest", async (request) => {
    if (request.is404) noRoute(request);
  });
  app.addHook("onResponse", async (request, reply) => {
    const { method, url } = request;
    request.log.info(
      { method, path: url.split("?")[0], status: reply.statusCode, ms: reply.elapsedTime },
      "request",
    );
  });
  app.setErrorHandler(sendProblem);
  app.setNotFoundHandler(noRoute);
  await app.register(websocket, {
    options: { maxPayload: MAX_MESSAGE_BYTES, perMessageDeflate: COMPRESSION },
    preClose(done) {
      stopPings();
      for (const client of app.websocketServer.clients)
        client.close(GOING_AWAY, "the server is shutting down");
      app.websocketServer.close(done);
    },
  });
  const stopPings = keepAlive(app.websocketServer, pingMs);
  await app.register(operationsRoutes, { engine, metrics: createMetrics(engine) });
  await app.register(generateRoute, { engine });
  await app.register(streamRoute, { engine });
  await app.register(openaiRoutes, { engine, prefix: "/v1" });
  await app.register(inferenceRoutes, { engine, prefix: "/v2" });
  await app.register(modelRoute, { engine });
  await app.register(playgroundRoutes);
  await app.register(referenceRoute);
  return app;
}
