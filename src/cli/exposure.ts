/** Whether the flags let strangers in. */

import { StartupError } from "../errors.ts";
import { isLoopback } from "../server/access/origins.ts";
import type { AccessConfig } from "./options.ts";

/** Throws StartupError if strangers could reach the server and nothing keeps them out, or flags do not fit together. */
export function checkExposure(config: AccessConfig): void {
  const { apiKeys, insecure, host, adminHost, adminPort, tlsCert, tlsKey } = config;
  if ((tlsCert === undefined) !== (tlsKey === undefined))
    throw new StartupError(`--tls-${tlsCert ? "cert needs --tls-key" : "key needs --tls-cert"} beside it`, 2);
  if (adminPort !== undefined && adminPort !== 0 && adminPort === config.port && adminHost === host)
    throw new StartupError(`--admin-port and --port are both ${adminPort}: choose another`, 2);
  if (apiKeys !== undefined || insecure) return;
  const exposed = [host, ...(adminPort === undefined ? [] : [adminHost])].find((one) => !isLoopback(one));
  if (exposed !== undefined)
    throw new StartupError(
      `will not listen on ${exposed} without API keys: make one with \`didi-serve keys add\` and give --api-keys FILE, or give --insecure if something else keeps strangers out`,
      2,
    );
}
