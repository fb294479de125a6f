/**
 * The Fastify application over the models. Building it does not listen, so that tests can inject requests.
 */

import type { FastifyInstance } from "fastify";
import type { ModelRegistry } from "../engine/models/registry.ts";
import { MemoryLimitStore } from "../quota/memory.ts";
import { Admission } from "./access/admission.ts";
import { KeyUsage } from "./access/key-usage.ts";
import { type BaseOptions, createBase, MAX_MESSAGE_BYTES } from "./base.ts";
import { generateRoute } from "./routes/generate.ts";
import { inferenceRoutes } from "./routes/inference.ts";
import { modelRoute } from "./routes/model.ts";
import { openaiRoutes } from "./routes/openai.ts";
import { contractRoute, healthRoutes, metricsRoute } from "./routes/operations.ts";
import { playgroundRoutes } from "./routes/playground.ts";
import { referenceRoutes } from "./routes/reference.ts";
import { streamRoute } from "./routes/stream.ts";
import { tokenizeRoutes } from "./routes/tokenize.ts";
import { watchAnswers } from "./streaming/in-flight.ts";
import { createMetrics, type Metrics } from "./telemetry/metrics.ts";
import { requestLog } from "./telemetry/request-log.ts";
import { createTracing, loadTracing } from "./telemetry/tracing.ts";

/** Settings of the application. */
export interface AppOptions extends BaseOptions {
  /** True if another application serves /metrics and /docs (`buildAdminApp`). */
  adminElsewhere?: boolean;
  /** Whether to log prompts and texts. */
  logPrompts?: boolean;
  /** Milliseconds within which a WebSocket without a key must send one. */
  authMs?: number;
  /** Metrics to share with another application; absent: create them. */
  metrics?: Metrics;
  /** Milliseconds after which to close a connection whose client reads nothing of its answer. */
  stallMs?: number;
}

/** Milliseconds after which to close a connection whose client reads nothing of its answer. */
const STALL_MS = 90_000;

/** Milliseconds within which a WebSocket without a key must send one. */
const AUTH_MS = 5000;

/** Build the application with all its routes; do not listen. */
export async function buildApp(models: ModelRegistry, options: AppOptions = {}): Promise<FastifyInstance> {
  const {
    adminElsewhere = false,
    logPrompts = false,
    authMs = AUTH_MS,
    stallMs = STALL_MS,
    ...base
  } = options;
  const store = base.store ?? new MemoryLimitStore();
  const metrics = base.metrics ?? createMetrics(models);
  const tracing = await loadTracing();
  // The log comes last: its lines hold the id of the trace.
  const sinks = [metrics.sink, ...(tracing ? [createTracing(tracing, models)] : []), requestLog];
  const app = await createBase({ ...base, store, sinks });
  watchAnswers(app, stallMs, () => models.started && !models.accepting);
  const admission = new Admission(models, new KeyUsage(store), logPrompts);
  await app.register(healthRoutes, { models });
  await app.register(contractRoute);
  await app.register(generateRoute, { admission });
  await app.register(streamRoute, {
    admission,
    keys: base.access?.keys,
    authMs,
    maxMessageBytes: base.maxMessageBytes ?? MAX_MESSAGE_BYTES,
  });
  await app.register(openaiRoutes, { admission, prefix: "/v1" });
  await app.register(inferenceRoutes, { admission, prefix: "/v2" });
  await app.register(modelRoute, { models });
  await app.register(tokenizeRoutes, { models });
  await app.register(playgroundRoutes);
  if (adminElsewhere) return app;
  await app.register(metricsRoute, { metrics: metrics.registry });
  await app.register(referenceRoutes, { tryOut: true });
  return app;
}

/** Build the application of an operator's own port: /metrics and /docs. */
export async function buildAdminApp(metrics: Metrics, options: BaseOptions = {}): Promise<FastifyInstance> {
  const app = await createBase(options);
  await app.register(metricsRoute, { metrics: metrics.registry });
  await app.register(referenceRoutes, { tryOut: false });
  await app.register(contractRoute);
  app.get("/", async (_request, reply) => reply.redirect("docs"));
  return app;
}
