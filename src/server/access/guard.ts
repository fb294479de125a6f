/** Access control: checks host, origin and API key of every request before anything else. */

import type { FastifyInstance, FastifyRequest } from "fastify";
import { ForbiddenError, invalid, UnauthorizedError } from "../../errors.ts";
import { howToAllow } from "./cors.ts";
import { type ApiKey, type KeyRing, looksLikeKey } from "./keys.ts";
import { isAllowedOrigin, isLocalHost, isOfOtherSite } from "./origins.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The API key of the request; null if none is required, or not yet sent on a WebSocket. */
    key: ApiKey | null;
  }
  interface FastifyContextConfig {
    /**
     * `open`: no key is required. `socket`: a WebSocket, whose key may come in its first message. `costly`: a
     * GET that generates, which pages of other origins may not send. Absent: a key is required, so that a new
     * route is closed by default.
     */
    access?: "open" | "socket" | "costly";
  }
}

/** Settings of the access control. */
export interface AccessOptions {
  /** Absent: no key is required. */
  keys?: KeyRing | undefined;
  /** Origins whose pages may use the server, or `*`; its own origin is always allowed. */
  allowedOrigins?: readonly string[] | undefined;
  /** True if the server listens on the loopback interface: the Host header must then name this machine. */
  loopback?: boolean | undefined;
}

/** Query parameters that other APIs take keys in. */
const KEY_PARAMETERS = /^(api[-_]?key|key|x-api-key|access[-_]token|auth[-_]?token|token|authorization)$/i;

/** How to send a key. */
const HOW = "send Authorization: Bearer KEY, or X-API-Key: KEY";

/**
 * Return the key in the headers; undefined if there is none. Throws UnauthorizedError for another scheme
 * alone.
 */
function keyOf({ headers }: FastifyRequest): string | undefined {
  const { authorization } = headers;
  const [, token] = /^Bearer +(\S+) *$/i.exec(authorization ?? "") ?? [];
  if (token !== undefined) return token;
  // With X-API-Key, an Authorization header of another scheme is for a proxy.
  const own = headers["x-api-key"];
  if (typeof own === "string") return own;
  if (authorization === undefined) return undefined;
  throw new UnauthorizedError(`the Authorization header holds no key: ${HOW}`, true);
}

/** Throw InvalidRequestError if the query seems to hold a key. */
function refuseKeyInUrl({ query }: FastifyRequest): void {
  for (const [name, value] of Object.entries((query ?? {}) as Record<string, string | string[]>))
    if (KEY_PARAMETERS.test(name) || [value].flat().some(looksLikeKey))
      throw invalid(
        "/query",
        `must not hold a key (${name}): logs and histories keep URLs. Revoke the key, and ${HOW}`,
      );
}

/** Return the key that a client sent. Throws UnauthorizedError if it is not in the file. */
export function knownKey(keys: KeyRing, given: string): ApiKey {
  const key = keys.find(given);
  if (!key) throw new UnauthorizedError("unknown API key: it may be mistyped, revoked or expired", true);
  return key;
}

/** Refuse requests without access; set `request.key` for the others. */
export function addGuard(
  app: FastifyInstance,
  { keys, allowedOrigins = [], loopback = false }: AccessOptions,
): void {
  app.decorateRequest("key", null);

  app.addHook("onRequest", async (request) => {
    const { host } = request.headers;
    // With keys, DNS rebinding gains nothing: the page has no key.
    if (loopback && !keys && !isLocalHost(host, allowedOrigins))
      throw new ForbiddenError(
        `the Host header names ${host}, and this server accepts requests for this machine only: ` +
          `let the proxy send Host: localhost, or ${howToAllow(`http://${host}`)}`,
      );
    const { origin } = request.headers;
    if (request.ws && !isAllowedOrigin(request.headers, allowedOrigins))
      throw new ForbiddenError(`pages of ${origin} may not open this WebSocket: ${howToAllow(origin)}`);
    // A page may send a GET to any origin, as an image does.
    const costly = request.routeOptions.config.access === "costly";
    if (costly && isOfOtherSite(request.headers))
      throw new ForbiddenError("pages of other sites may send this with fetch or EventSource only");
    if (costly && !isAllowedOrigin(request.headers, allowedOrigins))
      throw new ForbiddenError(`pages of ${origin} may not send this: ${howToAllow(origin)}`);
    // @fastify/websocket would open a WebSocket on any route, and close it at once.
    if (request.ws && request.routeOptions.config.access !== "socket" && !request.is404)
      throw invalid("/headers/Upgrade", "is not supported on this route");
  });

  if (!keys) return;
  app.addHook("onRequest", async (request, reply) => {
    const { access } = request.routeOptions.config;
    refuseKeyInUrl(request);
    if (access === "open") return;
    const given = keyOf(request);
    if (given === undefined) {
      if (access === "socket" && request.ws) return;
      throw new UnauthorizedError(`this server requires an API key: ${HOW}`, false);
    }
    const key = knownKey(keys, given);
    request.key = key;
    if (request.ws) return;
    // Revoking a key ends its running requests.
    const end = () => reply.raw.destroy();
    key.revoked.addEventListener("abort", end);
    reply.raw.once("close", () => key.revoked.removeEventListener("abort", end));
  });
}
