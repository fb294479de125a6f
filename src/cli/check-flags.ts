/** Checks of flags that depend on each other. */

import { StartupError } from "../errors.ts";
import { isLoopback } from "../server/access/origins.ts";
import { checkWorkers, kindOf } from "./device.ts";
import type { AccessConfig, ServeConfig } from "./options.ts";

/** Throw StartupError if flags conflict, or if another machine could reach the server without an API key. */
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
      `will not listen on ${exposed} without API keys: create one with \`didi-serve keys add\` and give ` +
        "--api-keys FILE, or give --insecure if access is restricted by other means",
      2,
    );
}

/**
 * Throw StartupError for a flag of `serve` that has no effect beside the others: its user expects one.
 * `given(name)` tells whether the flag of that property was given.
 */
export function refuseUselessFlags(config: ServeConfig, given: (name: keyof ServeConfig) => boolean): void {
  const { adminPort, device, workers, split, cacheMb, redis, apiKeys, model } = config;
  const refuse = (flag: string, why: string) => {
    throw new StartupError(`${flag} has no effect ${why}`, 2);
  };
  if (given("adminHost") && adminPort === undefined)
    refuse("--admin-host", "without --admin-port: give both, or neither");
  if (given("split") && split !== "auto" && split > 1 && kindOf(device) === "cuda")
    refuse("--split", "with --device cuda, where batches are not divided: leave it out");
  if (given("maxLoaded") && model.length === 1)
    refuse("--max-loaded", "with one model: give --model more than once, or leave it out");
  if (given("workers")) checkWorkers(device, workers);
  if (given("cacheTtl") && cacheMb === 0)
    refuse("--cache-ttl", "with --cache-mb 0, which disables the cache: leave one of them out");
  if (redis !== undefined && cacheMb === 0 && apiKeys === undefined)
    refuse("--redis", "without --api-keys and with --cache-mb 0: there is nothing to share");
}

/**
 * Set `workers` from its deprecated name `runtimes`, unless `--workers` is given too; warn on standard error.
 */
export function applyDeprecatedFlags(config: ServeConfig, given: (name: keyof ServeConfig) => boolean): void {
  if (config.runtimes === undefined) return;
  console.error("didi-serve: --runtimes (DIDI_RUNTIMES) is deprecated: use --workers (DIDI_WORKERS)");
  if (!given("workers")) config.workers = config.runtimes;
}
