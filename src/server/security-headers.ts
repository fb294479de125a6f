/** Security headers, and a content security policy for each kind of answer. */

import helmet from "@fastify/helmet";
import type { FastifyInstance } from "fastify";

/** Directives with their sources. */
type Directives = Record<string, readonly string[]>;

const FRAMED_NOWHERE: Directives = {
  "base-uri": ["'none'"],
  "form-action": ["'none'"],
  "frame-ancestors": ["'none'"],
};

/** Content security policies. */
const POLICIES = {
  /** The playground loads from its own server only, without inline scripts and styles. */
  playground: {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    ...FRAMED_NOWHERE,
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["'none'"],
  },
  /** Swagger UI has data: icons in its style sheet, and inline styles. */
  reference: {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:"],
    "connect-src": ["'self'"],
    ...FRAMED_NOWHERE,
  },
  /** Answers other than pages load nothing. */
  data: { "default-src": ["'none'"], ...FRAMED_NOWHERE },
} satisfies Record<string, Directives>;

/** Add the headers of every answer: those of helmet, and the policy for answers other than pages. */
export async function addSecurityHeaders(app: FastifyInstance, overTls: boolean): Promise<void> {
  const directives = Object.entries<readonly string[]>(POLICIES.data);
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: Object.fromEntries(directives.map(([directive, sources]) => [directive, [...sources]])),
    },
    xFrameOptions: { action: "deny" },
    // Only with TLS, and not for subdomains: HSTS binds the host name, localhost included, for all ports.
    strictTransportSecurity: overTls && { maxAge: 15_552_000, includeSubDomains: false },
  });
}

/**
 * Make every route of `app` serve pages under `policy` and without a key: users enter the key into the loaded
 * page, and the pages hold nothing secret. Call it before the routes are added.
 */
export function servePages(app: FastifyInstance, policy: keyof typeof POLICIES): void {
  const text = Object.entries<readonly string[]>(POLICIES[policy])
    .map(([directive, sources]) => `${directive} ${sources.join(" ")}`)
    .join(";");
  app.addHook("onRoute", (route) => {
    route.config = { ...route.config, access: "open" };
  });
  app.addHook("onSend", async (_request, reply) => {
    reply.header("content-security-policy", text);
  });
}
