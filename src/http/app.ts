/** The face: a Fastify application over an engine. Building it does not listen, so tests can inject. */

import websocket from "@fastify/websocket";
import Fastify, { type FastifyInstance, type FastifyServerOptions, LogController } from "fastify";
import type { Engine } from "../engine/engine.ts";
import { watchAnswers } from "./in-flight.ts";
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
import { COMPRESSION, closeAll, endRefusedUpgrades, keepAlive } from "./socket.ts";

/** Largest body or WebSocket message, bytes. A prompt that fits any context fits in it. */
const MAX_MESSAGE_BYTES = 1024 * 1024;

const sendProblem = sendAs((problem) => problem, "application/problem+json");

/** Milliseconds between pings of a WebSocket. */
const PING_MS = 30_000;
/** Milliseconds after which a client that takes nothing of its answer is given up. */
const STALL_MS = 90_000;

/** Settings of the application; `logger` is Fastify's option. */
export interface AppOptions extends Pick<FastifyServerOptions, "logger"> {
  /** Milliseconds between pings of a WebSocket. */
  pingMs?: number;
  /** Milliseconds after which a client that takes nothing of its answer is given up. */
  stallMs?: number;
}

/** Builds the application. */
export async function buildApp(
  engine: Engine,
  { pingMs = PING_MS, stallMs = STALL_MS, ...options }: AppOptions = {},
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
      closeAll(app.websocketServer, done);
    },
  });
  const stopPings = keepAlive(app.websocketServer, pingMs);
  endRefusedUpgrades(app);
  watchAnswers(app, stallMs, () => engine.ready && !engine.accepting);
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
