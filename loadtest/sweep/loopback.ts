/** The target of a load test. Other hosts must be named twice: a load test of a host by mistake is an attack. */

import { isIP } from "node:net";
import { StartupError } from "../../src/errors.ts";

/** Return whether a host name, as `URL` writes it, is of this machine. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "");
  if (isIP(host) === 4) return host.startsWith("127.");
  return host === "::1" || host === "localhost" || /^::ffff:7f[0-9a-f]{2}:[0-9a-f]{1,4}$/.test(host);
}

/**
 * Return the origin of `address`. Throw StartupError if it is no HTTP URL, or of another machine that `iKnow` does not name.
 */
export function checkTarget(address: string, iKnow: string | undefined): string {
  if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol))
    throw new StartupError(`--url ${address}: it must be an address such as http://127.0.0.1:8080`, 2);
  const { hostname, href } = new URL(address);
  if (!isLoopback(hostname) && hostname !== iKnow)
    throw new StartupError(
      `--url ${address}: ${hostname} is not this machine. If it is yours to load, say so: --i-know ${hostname}`,
      2,
    );
  return href.replace(/\/+$/, "");
}
