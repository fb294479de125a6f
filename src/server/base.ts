/** The base of every application: limits, request ids, headers, access control, errors and the log. */

import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import accepts from "@fastify/accepts";
import websocket from "@fastify/websocket";
import Fastify, { type FastifyInstance, type FastifyServerOptions, LogController } from "fastify";
import { type LimitStore, MemoryLimitStore } from "../quota/memory.ts";
import { addCors } from "./access/cors.ts";
import { type AccessOptions, addGuard } from "./access/guard.ts";
import { addRequestLimit } from "./access/request-limit.ts";
import { jsonReader } from "./json.ts";
import { createListener, LISTENER, type ListenerOptions, refuseClient } from "./listener/listener.ts";
import { noRoute, sendAs } from "./listener/refuse.ts";
import { ignoreOtherProtocols } from "./other-protocols.ts";
import { useContract } from "./route-schema.ts";
import { addSecurityHeaders } from "./security-headers.ts";
import { COMPRESSION, closeAll, endRefusedUpgrades, keepAlive } from "./streaming/websocket.ts";
import { holdsKey, safeLogger } from "./telemetry/logger.ts";
import { beginRecord, type TelemetrySink } from "./telemetry/record.ts";
import { requestLog } from "./telemetry/request-log.ts";

/** Largest body, and largest WebSocket message, in bytes. A prompt that fits any context fits in it. */
export const MAX_MESSAGE_BYTES = 1024 * 1024;

/** Milliseconds between pings of a WebSocket. */
const PING_MS = 30_000;

/** Request ids that are safe in a log and in a header, which those of common tracers are. */
const SAFE_ID = /^[A-Za-z0-9._~:=+@/-]{1,128}$/;

/** Return the client's X-Request-Id if it is safe and holds no API key, else a new id. */
function requestIdOf({ headers }: { headers: IncomingHttpHeaders }): string {
  const given = headers["x-request-id"];
  return typeof given === "string" && SAFE_ID.test(given) && !holdsKey(given) ? given : randomUUID();
}

/** Settings of an application; the defaults are those of the command line. */
export interface BaseOptions {
  /** The option `logger` of Fastify. */
  logger?: FastifyServerOptions["logger"];
  access?: AccessOptions;
  listener?: Partial<ListenerOptions>;
  maxBodyBytes?: number | undefined;
  maxMessageBytes?: number | undefined;
  /** Milliseconds between pings of a WebSocket. */
  pingMs?: number;
  /** Counts the usage of keys. */
  store?: LimitStore;
  /** Receive the record of every request. */
  sinks?: readonly TelemetrySink[];
}

const sendProblem = sendAs((problem) => problem, "application/problem+json");

/** Create an application without routes. */
export async function createBase({
  logger,
  access = {},
  listener = {},
  maxBodyBytes = MAX_MESSAGE_BYTES,
  maxMessageBytes = MAX_MESSAGE_BYTES,
  pingMs = PING_MS,
  store = new MemoryLimitStore(),
  sinks = [requestLog],
}: BaseOptions): Promise<FastifyInstance> {
  const bounds = { ...LISTENER, ...listener };
  const options: FastifyServerOptions = {
    ...(logger !== undefined && { logger: safeLogger(logger) }),
    bodyLimit: maxBodyBytes,
    forceCloseConnections: true,
    // Compiling the schemas takes up to a second, and many seconds on a busy machine.
    pluginTimeout: 60_000,
    // Clients join a base address and a path in every way.
    routerOptions: { ignoreTrailingSlash: true, ignoreDuplicateSlashes: true },
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: requestIdOf,
    frameworkErrors(error, request, reply) {
      beginRecord(request, reply, sinks);
      sendProblem(error, request, reply);
    },
    clientErrorHandler: refuseClient,
    serverFactory: (handler) => createListener(bounds, handler, (message) => app.log.warn(message)),
  };
  // Only makes addresses begin with https: `serverFactory` creates the server.
  const app = Fastify(Object.assign(options, bounds.tls && { https: {} }));
  // A page of any origin may send plain text without a preflight; no route accepts it.
  app.removeContentTypeParser("text/plain");
  app.removeContentTypeParser("application/json");
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, jsonReader(app));
  /** Ids by request: the handshake of a WebSocket is answered outside Fastify. */
  const ids = new WeakMap<IncomingMessage, string>();
  app.addHook("onRequest", async (request, reply) => {
    ids.set(request.raw, request.id);
    beginRecord(request, reply, sinks);
    reply.header("x-request-id", request.id);
  });
  await app.register(accepts);
  useContract(app);
  app.setErrorHandler(sendProblem);
  app.setNotFoundHandler(noRoute);
  await addSecurityHeaders(app, bounds.tls !== undefined);
  await addCors(app, access.allowedOrigins ?? []);
  await addSockets(app, maxMessageBytes, pingMs);
  ignoreOtherProtocols(app.server);
  app.websocketServer.on("headers", (headers, raw) => headers.push(`x-request-id: ${ids.get(raw)}`));
  addGuard(app, access);
  // Refuse before the body is read.
  app.addHook("onRequest", async (request) => {
    if (request.is404) noRoute(request);
  });
  if (access.keys) await addRequestLimit(app, store);
  return app;
}

async function addSockets(app: FastifyInstance, maxPayload: number, pingMs: number): Promise<void> {
  await app.register(websocket, {
    options: { maxPayload, perMessageDeflate: COMPRESSION },
    preClose(done) {
      stopPings();
      closeAll(app.websocketServer, done);
    },
  });
  const stopPings = keepAlive(app.websocketServer, pingMs);
  endRefusedUpgrades(app);
}
