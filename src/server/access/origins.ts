/** Which pages and host names a request may come from. */

import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";

/** Any page. */
export const ANY_ORIGIN = "*";

/** True for an address that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?|\[?::ffff:127(\.\d{1,3}){3}\]?)$/i.test(host);
}

/**
 * Whether the page that a browser names may open a WebSocket here: none is named (no browser), it is this server's own,
 * or it is allowed. The scheme is not compared: a proxy may have taken TLS off.
 */
export function isAllowedOrigin(
  { origin, host }: Pick<IncomingMessage["headers"], "origin" | "host">,
  allowed: readonly string[],
): boolean {
  if (origin === undefined || allowed.includes(ANY_ORIGIN) || allowed.includes(origin)) return true;
  return URL.canParse(origin) && new URL(origin).host === hostOf(host);
}

/**
 * Whether a Host header can be that of a server on the loopback interface. A page can give its own name the address
 * 127.0.0.1 after it has loaded (DNS rebinding): its requests then pass for this server's own, but still name its
 * host. Such names have a dot; what has none cannot be bought.
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

/** A Host header as URLs write it; undefined if there is none, "" if it is no host. */
function hostOf(host: string | undefined): string | undefined {
  if (host === undefined) return undefined;
  return URL.canParse(`http://${host}`) ? new URL(`http://${host}`).host : "";
}
