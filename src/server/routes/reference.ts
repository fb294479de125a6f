/** GET /docs: openapi.yaml as a page on which a request can be tried. */

import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { FastifyInstance } from "fastify";
import { CONTRACT } from "../openapi.ts";
import { servePages } from "../security-headers.ts";

/**
 * Add the page. `tryOut`: whether this application serves the API, so that the page can send requests to it.
 */
export async function referenceRoutes(app: FastifyInstance, { tryOut }: { tryOut: boolean }) {
  servePages(app, "reference");
  // Relative to the page's copy of the document, so that requests go to the server that sent the page.
  const document = { ...CONTRACT, servers: [{ url: ".." }] };
  await app.register(swagger, { mode: "static", specification: { document } });
  await app.register(swaggerUi, {
    routePrefix: "/docs",
    uiConfig: {
      // Swagger's own service would be asked whether the document is valid.
      validatorUrl: null,
      tryItOutEnabled: tryOut,
      ...(!tryOut && { supportedSubmitMethods: [] }),
    },
  });
}
