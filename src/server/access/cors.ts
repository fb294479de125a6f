/** CORS headers for the pages of allowed origins; browsers refuse other cross-origin requests by default. */

import cors from "@fastify/cors";
import type { FastifyInstance } from "fastify";
import { ForbiddenError } from "../../errors.ts";
import { ANY_ORIGIN, isAllowedOrigin } from "./origins.ts";

/** Seconds that a browser may cache the answer to a preflight request. */
const MAX_AGE = 600;

/** Return what an operator can do so that a page may send requests. */
export const howToAllow = (origin: string | undefined) => `start the server with --allow-origin ${origin}`;

/**
 * Answer preflight requests and add CORS headers for allowed origins; refuse preflight requests of others.
 */
export async function addCors(app: FastifyInstance, allowed: readonly string[]): Promise<void> {
  app.addHook("onRequest", async ({ method, headers }) => {
    const isPreflight = method === "OPTIONS" && headers["access-control-request-method"] !== undefined;
    if (isPreflight && !isAllowedOrigin(headers, allowed))
      throw new ForbiddenError(
        `pages of ${headers.origin} may not send requests here: ${howToAllow(headers.origin)}`,
      );
  });
  if (allowed.length === 0) return;
  await app.register(cors, {
    origin: allowed.includes(ANY_ORIGIN) ? ANY_ORIGIN : [...allowed],
    methods: ["GET", "HEAD", "POST"],
    // An allowed page may send any header: clients add their own, such as x-stainless-os.
    exposedHeaders: [
      "allow",
      "inference-header-content-length",
      "retry-after",
      "ratelimit-limit",
      "ratelimit-remaining",
      "ratelimit-reset",
      "www-authenticate",
      "x-request-id",
    ],
    maxAge: MAX_AGE,
    // An OPTIONS request without the preflight headers gets the same answer: no route has another.
    strictPreflight: false,
  });
}
