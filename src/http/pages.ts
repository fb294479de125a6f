/** How pages are sent: what they may load, and not again while they are the same. */

import { createHash } from "node:crypto";
import type { FastifyInstance } from "fastify";

/** Common to every page: no frame around it, no address given on. */
const HEADERS = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  // Asked for anew each time, answered 304 while it is the same.
  "cache-control": "no-cache",
};

const FRAMED_NOWHERE = ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"];

/** Content security policies: what a page may do. */
export const POLICIES = {
  /** It may load from its own server alone, and runs no inline script or style. */
  app: [
    "default-src 'self'",
    "object-src 'none'",
    ...FRAMED_NOWHERE,
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ],
  /** It runs no script at all. */
  document: [
    "default-src 'none'",
    "style-src 'self'",
    "font-src 'self'",
    "img-src 'self'",
    ...FRAMED_NOWHERE,
  ],
} as const;

/** Adds a route that answers with a fixed body. */
export function addPage(
  app: FastifyInstance,
  address: string,
  { body, type, policy }: { body: Buffer | string; type: string; policy: keyof typeof POLICIES },
): void {
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`;
  const headers = { ...HEADERS, "content-security-policy": POLICIES[policy].join("; "), etag };
  app.get(address, async (request, reply) => {
    reply.headers(headers);
    if (request.headers["if-none-match"] === etag) return reply.code(304).send();
    return reply.type(type).send(body);
  });
}
