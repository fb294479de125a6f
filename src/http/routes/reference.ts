/** GET /docs: the contract to read, made once. */

import type { FastifyInstance } from "fastify";
import { addPage } from "../pages.ts";
import { referencePage } from "../reference/page.ts";

export async function referenceRoute(app: FastifyInstance) {
  addPage(app, "/docs", {
    body: referencePage(),
    type: "text/html; charset=utf-8",
    policy: "document",
    open: false,
  });
}
