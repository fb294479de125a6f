/** The target of a load test. Another machine must be named twice: a load test by mistake is an attack. */

import { StartupError } from "../../src/errors.ts";
import { isLoopback } from "../../src/server/access/origins.ts";

/**
 * Return the origin of `address`. Throws StartupError if it is not an HTTP URL, or names another machine than
 * `iKnow`.
 */
export function checkTarget(address: string, iKnow: string | undefined): string {
  if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol))
    throw new StartupError(`--url ${address}: give an address such as http://127.0.0.1:8080`, 2);
  const { hostname, href } = new URL(address);
  if (!isLoopback(hostname) && hostname !== iKnow)
    throw new StartupError(
      `--url ${address}: ${hostname} is not this machine; if you may load it, add --i-know ${hostname}`,
      2,
    );
  return href.replace(/\/+$/, "");
}
