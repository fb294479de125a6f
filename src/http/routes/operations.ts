/** What operators and machines look at: health, readiness, metrics, the contract. */

import type { FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import type { Engine } from "../../engine/engine.ts";
import { CONTRACT_TEXT } from "../openapi.ts";
import { checkReady } from "../readiness.ts";

export async function healthRoutes(app: FastifyInstance, { engine }: { engine: Engine }) {
  const open = { config: { access: "open" as const } };
  app.get("/healthz", open, async () => ({ status: "ok" }));
  app.get("/readyz", open, async () => {
    checkReady(engine);
    return { status: "ok" };
  });
}

export async function metricsRoute(app: FastifyInstance, { metrics }: { metrics: Registry }) {
  app.get("/metrics", async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.metrics()),
  );
}

export async function contractRoute(app: FastifyInstance) {
  app.get("/openapi.yaml", async (_request, reply) => reply.type("application/yaml").send(CONTRACT_TEXT));
}
