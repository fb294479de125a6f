/** Cross-origin requests of the pages that are allowed; of others, browsers refuse them where nothing is said. */

import cors from "@fastify/cors";
import type { FastifyInstance } from "fastify";
import { ANY_ORIGIN } from "./origins.ts";

/** Seconds for which a browser need not ask again. */
const MAX_AGE = 600;

/** Answers preflight requests, and names allowed origins in answers. Without any, adds nothing. */
export async function addCors(app: FastifyInstance, allowed: readonly string[]): Promise<void> {
  if (allowed.length === 0) return;
  await app.register(cors, {
    origin: allowed.includes(ANY_ORIGIN) ? ANY_ORIGIN : [...allowed],
    methods: ["GET", "HEAD", "POST"],
    allowedHeaders: ["authorization", "content-type", "last-event-id", "x-api-key", "x-request-id"],
    exposedHeaders: [
      "allow",
      "retry-after",
      "ratelimit-limit",
      "ratelimit-remaining",
      "ratelimit-reset",
      "www-authenticate",
      "x-request-id",
    ],
    maxAge: MAX_AGE,
    // Another OPTIONS request is answered like one: there is nothing else to ask.
    strictPreflight: false,
  });
}
