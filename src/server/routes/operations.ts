/** Health, readiness, metrics and the contract. */

import type { FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import type { ModelRegistry } from "../../engine/models/registry.ts";
import { CONTRACT_TEXT } from "../openapi.ts";
import { checkReady } from "../readiness.ts";
import { schemaOf } from "../route-schema.ts";
import { modelIn, type NamesModel } from "./model.ts";

export async function healthRoutes(app: FastifyInstance, { models }: { models: ModelRegistry }) {
  const config = { access: "open" as const };
  app.get("/healthz", { config, schema: schemaOf("health") }, async () => ({ status: "ok" }));
  app.get<NamesModel>("/readyz", { config, schema: schemaOf("ready") }, async ({ query }) => {
    checkReady(models, modelIn(query));
    return { status: "ok" };
  });
}

export async function metricsRoute(app: FastifyInstance, { metrics }: { metrics: Registry }) {
  // A scrape does not count against the requests of its key.
  const config = { rateLimit: false as const };
  app.get("/metrics", { config, schema: schemaOf("metrics") }, async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.metrics()),
  );
}

export async function contractRoute(app: FastifyInstance) {
  app.get("/openapi.yaml", { schema: schemaOf("contract") }, async (_request, reply) =>
    reply.type("application/yaml").send(CONTRACT_TEXT),
  );
}
