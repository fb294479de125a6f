/** What answers may do in a browser: security headers, and a content security policy for each kind of answer. */

import helmet from "@fastify/helmet";
import type { FastifyInstance } from "fastify";

/** Names of directives, and what they allow. */
type Directives = Record<string, readonly string[]>;

const FRAMED_NOWHERE: Directives = {
  "base-uri": ["'none'"],
  "form-action": ["'none'"],
  "frame-ancestors": ["'none'"],
};

/** Content security policies. */
const POLICIES = {
  /** The playground loads from its own server alone, and runs no inline script or style. */
  playground: {
    "default-src": ["'self'"],
    "object-src": ["'none'"],
    ...FRAMED_NOWHERE,
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["'none'"],
  },
  /** Swagger UI has its icons in its style sheet, and sets styles on elements. */
  reference: {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:"],
    "connect-src": ["'self'"],
    ...FRAMED_NOWHERE,
  },
  /** An answer that is no page loads nothing. */
  data: { "default-src": ["'none'"], ...FRAMED_NOWHERE },
} satisfies Record<string, Directives>;

/** Add the headers that every answer has: helmet's own, and the policy of an answer that is no page. */
export async function addSecurityHeaders(app: FastifyInstance, overTls: boolean): Promise<void> {
  const directives = Object.entries<readonly string[]>(POLICIES.data);
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: Object.fromEntries(directives.map(([directive, sources]) => [directive, [...sources]])),
    },
    xFrameOptions: { action: "deny" },
    // Of no use without TLS, and a server of this machine must not bind its name for other ports.
    strictTransportSecurity: overTls && { maxAge: 15_552_000, includeSubDomains: false },
  });
}

/**
 * Make every route of `app` serve pages under `policy` and without a key: a key can only be entered into a page that has
 * loaded, and the pages hold nothing that the package does not. Call it before the routes are added.
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
