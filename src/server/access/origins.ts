/** Allowed origins and host names of requests. */

import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";

/** Every origin is allowed. */
export const ANY_ORIGIN = "*";

/** Return whether only this machine can reach an address. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?|\[?::ffff:127(\.\d{1,3}){3}\]?)$/i.test(host);
}

/**
 * Return whether a page may open a WebSocket: its origin is this server's or allowed, or there is no Origin
 * header, which browsers always send. The scheme is not compared, because a proxy may have terminated TLS.
 */
export function isAllowedOrigin(
  { origin, host }: Pick<IncomingMessage["headers"], "origin" | "host">,
  allowed: readonly string[],
): boolean {
  if (origin === undefined || allowed.includes(ANY_ORIGIN) || allowed.includes(origin)) return true;
  return URL.canParse(origin) && new URL(origin).host === hostOf(host);
}

/**
 * Return whether a page of another site sends a request without an Origin header, as for an image or a link.
 * Browsers say so to hosts that they trust: https ones and this machine.
 */
export function isOfOtherSite({ origin, ...headers }: IncomingMessage["headers"]): boolean {
  return origin === undefined && /^(cross|same)-site$/.test(String(headers["sec-fetch-site"]));
}

/**
 * Return whether a Host header names this machine, for a server on the loopback interface. A page can point
 * its own host name to 127.0.0.1 after it has loaded (DNS rebinding): its requests are then same-origin, but
 * still name its host. Such names have a dot; names without one cannot be registered.
 */
export function isLocalHost(host: string | undefined, allowed: readonly string[]): boolean {
  const named = hostOf(host);
  if (named === undefined || allowed.includes(ANY_ORIGIN)) return true;
  if (named === "") return false;
  const name = new URL(`http://${named}`).hostname;
  // A name is what a page can rebind; the port is the same for everyone.
  if (allowed.some((origin) => new URL(origin).hostname === name)) return true;
  return isIP(name.replace(/^\[|\]$/g, "")) !== 0 || !name.includes(".") || name.endsWith(".localhost");
}

/** Return a Host header in the form of `URL.host`; undefined without the header, "" if it is not a host. */
function hostOf(host: string | undefined): string | undefined {
  if (host === undefined) return undefined;
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).host : "";
}
