/** Flags that would do nothing beside the others: who gave them meant something else, so they are refused. */

import { StartupError } from "../errors.ts";
import type { ServeConfig } from "./options.ts";

/** Throw StartupError naming the first flag of `serve` that does nothing. `given` says which were given, by property. */
export function refuseUselessFlags(config: ServeConfig, given: (name: keyof ServeConfig) => boolean): void {
  const { adminPort, device, split, cacheMb, redis, apiKeys } = config;
  const refuse = (flag: string, why: string) => {
    throw new StartupError(`${flag} does nothing ${why}`, 2);
  };
  if (given("adminHost") && adminPort === undefined)
    refuse("--admin-host", "without --admin-port: give both, or neither");
  if (given("split") && split !== "auto" && split > 1 && device === "cuda")
    refuse("--split", "with --device cuda, which runs a batch whole: leave it out");
  if (given("cacheTtl") && cacheMb === 0)
    refuse("--cache-ttl", "with --cache-mb 0, which keeps no answers: leave one of them out");
  if (redis !== undefined && cacheMb === 0 && apiKeys === undefined)
    refuse("--redis", "without --api-keys and with --cache-mb 0: there is nothing to share");
}

/** Set `workers` from its deprecated name `runtimes`, with a warning on standard error. `--workers` wins if both are given. */
export function applyDeprecatedFlags(config: ServeConfig, given: (name: keyof ServeConfig) => boolean): void {
  if (config.runtimes === undefined) return;
  console.error("didi-serve: --runtimes (DIDI_RUNTIMES) is deprecated: use --workers (DIDI_WORKERS)");
  if (!given("workers")) config.workers = config.runtimes;
}
