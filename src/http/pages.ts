/** How pages are sent: what they may load, and not again while they are the same. */

import { createHash } from "node:crypto";
import helmet from "@fastify/helmet";
import type { FastifyInstance } from "fastify";

/** Names of directives, and what they allow. */
type Directives = Record<string, readonly string[]>;

const FRAMED_NOWHERE: Directives = {
  "base-uri": ["'none'"],
  "form-action": ["'none'"],
  "frame-ancestors": ["'none'"],
};

/** Content security policies: what an answer may do in a browser. */
const DIRECTIVES = {
  /** A page that may load from its own server alone, and runs no inline script or style. */
  app: {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    ...FRAMED_NOWHERE,
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["'none'"],
  },
  /** A page that runs no script at all. */
  document: {
    "default-src": ["'none'"],
    "style-src": ["'self'"],
    "font-src": ["'self'"],
    "img-src": ["'self'"],
    ...FRAMED_NOWHERE,
  },
  /** What is no page: nothing. */
  data: { "default-src": ["'none'"], ...FRAMED_NOWHERE },
} satisfies Record<string, Directives>;

/** A policy as helmet takes it. */
function policyOf(name: keyof typeof DIRECTIVES) {
  const directives = Object.entries<readonly string[]>(DIRECTIVES[name]);
  return {
    useDefaults: false,
    directives: Object.fromEntries(directives.map(([directive, sources]) => [directive, [...sources]])),
  };
}

/** Adds the headers that every answer has: helmet's own, with the policies of this file. */
export async function addSecurityHeaders(app: FastifyInstance, overTls: boolean): Promise<void> {
  await app.register(helmet, {
    contentSecurityPolicy: policyOf("data"),
    xFrameOptions: { action: "deny" },
    // Of no use without TLS, and a server of this machine must not bind its name for other ports.
    strictTransportSecurity: overTls && { maxAge: 15_552_000, includeSubDomains: false },
  });
}

/** Adds a route that answers with a fixed body. */
export function addPage(
  app: FastifyInstance,
  address: string,
  {
    body,
    type,
    policy,
    open,
  }: { body: Buffer | string; type: string; policy: "app" | "document"; open: boolean },
): void {
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`;
  // Asked for anew each time, answered 304 while it is the same.
  const headers = { "cache-control": "no-cache", etag };
  const options = {
    helmet: { contentSecurityPolicy: policyOf(policy) },
    config: open ? { access: "open" as const } : {},
  };
  app.get(address, options, async (request, reply) => {
    reply.headers(headers);
    if (request.headers["if-none-match"] === etag) return reply.code(304).send();
    return reply.type(type).send(body);
  });
}
