/** What operators and machines look at: health, readiness, metrics, the contract. */

import type { FastifyInstance } from "fastify";
import type { Registry } from "prom-client";
import type { Engine } from "../../engine/engine.ts";
import { CONTRACT_TEXT } from "../openapi.ts";
import { checkReady } from "../problem.ts";

export async function operationsRoutes(
  app: FastifyInstance,
  { engine, metrics }: { engine: Engine; metrics: Registry },
) {
  app.get("/healthz", async () => ({ status: "ok" }));
  app.get("/readyz", async () => {
    checkReady(engine);
    return { status: "ok" };
  });
  app.get("/metrics", async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.metrics()),
  );
  app.get("/openapi.yaml", async (_request, reply) => reply.type("application/yaml").send(CONTRACT_TEXT));
}
