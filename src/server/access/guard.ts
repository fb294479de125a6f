/** Who may come in: asked of each request before anything else is. */

import type { FastifyInstance, FastifyRequest } from "fastify";
import { ForbiddenError, InvalidRequestError, UnauthorizedError } from "../../errors.ts";
import { howToAllow } from "./cors.ts";
import { type ApiKey, type KeyRing, looksLikeKey } from "./keys.ts";
import { isAllowedOrigin, isLocalHost } from "./origins.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The key that the request came with; null where none is asked for, or not yet. */
    key: ApiKey | null;
  }
  interface FastifyContextConfig {
    /**
     * `open`: asks for no key. `socket`: a WebSocket, which may bring its key in its first message. Absent: asks for a
     * key, so that a route that nobody thought about is closed.
     */
    access?: "open" | "socket";
  }
}

/** Who may come in. */
export interface AccessOptions {
  /** Absent: no key is asked for. */
  keys?: KeyRing | undefined;
  /** Origins of pages beside the server's own, or `*`. */
  allowedOrigins?: readonly string[] | undefined;
  /** True if the server listens on the loopback interface: requests must then name a host that can be there. */
  loopback?: boolean | undefined;
}

/** Parameters that people put keys in. */
const KEY_PARAMETERS = /^(api[-_]?key|key|x-api-key|access[-_]token|auth[-_]?token|token|authorization)$/i;

/** What to do about a missing key. */
const HOW = "send Authorization: Bearer KEY, or X-API-Key: KEY";

/** The key of a request's headers; undefined if there is none. Throws UnauthorizedError if there is another scheme alone. */
function keyOf({ headers }: FastifyRequest): string | undefined {
  const { authorization } = headers;
  const [, token] = /^Bearer +(\S+) *$/i.exec(authorization ?? "") ?? [];
  if (token !== undefined) return token;
  // Beside it, another scheme is for a proxy.
  const own = headers["x-api-key"];
  if (typeof own === "string") return own;
  if (authorization === undefined) return undefined;
  throw new UnauthorizedError(`the Authorization header holds no key: ${HOW}`, true);
}

/** Throws InvalidRequestError if a URL seems to hold a key. */
function refuseKeyInUrl({ query }: FastifyRequest): void {
  for (const [name, value] of Object.entries((query ?? {}) as Record<string, string | string[]>))
    if (KEY_PARAMETERS.test(name) || [value].flat().some(looksLikeKey))
      throw new InvalidRequestError([
        {
          path: "/query",
          message: `may not hold a key, as ${name} seems to: URLs stay in logs and histories. Replace the key, and ${HOW}`,
        },
      ]);
}

/** The key of that text. Throws UnauthorizedError if there is no such key. */
export function knownKey(keys: KeyRing, given: string): ApiKey {
  const key = keys.find(given);
  if (!key)
    throw new UnauthorizedError("there is no such API key: it may have been removed or mistyped", true);
  return key;
}

/** Lets in who may; `request.key` says who it is. */
export function addGuard(
  app: FastifyInstance,
  { keys, allowedOrigins = [], loopback = false }: AccessOptions,
): void {
  app.decorateRequest("key", null);

  app.addHook("onRequest", async (request) => {
    const { host } = request.headers;
    // With keys, a page that got here by a trick still has none.
    if (loopback && !keys && !isLocalHost(host, allowedOrigins))
      throw new ForbiddenError(
        `the Host header names ${host}, and this server is for this machine alone: a proxy must name it localhost, or ${howToAllow(`http://${host}`)}`,
      );
    if (request.ws && !isAllowedOrigin(request.headers, allowedOrigins))
      throw new ForbiddenError(
        `pages of ${request.headers.origin} may not open this WebSocket: ${howToAllow(request.headers.origin)}`,
      );
    // What is no WebSocket would be opened as one and closed at once.
    if (request.ws && request.routeOptions.config.access !== "socket" && !request.is404)
      throw new InvalidRequestError([{ path: "/headers/Upgrade", message: "has no use here" }]);
  });

  if (!keys) return;
  app.addHook("onRequest", async (request, reply) => {
    const { access } = request.routeOptions.config;
    refuseKeyInUrl(request);
    if (access === "open") return;
    const given = keyOf(request);
    if (given === undefined) {
      if (access === "socket" && request.ws) return;
      throw new UnauthorizedError(`this server needs an API key: ${HOW}`, false);
    }
    const key = knownKey(keys, given);
    request.key = key;
    if (request.ws) return;
    // Whoever loses the key loses what is still running with it.
    const end = () => reply.raw.destroy();
    key.revoked.addEventListener("abort", end);
    reply.raw.once("close", () => key.revoked.removeEventListener("abort", end));
  });
}
