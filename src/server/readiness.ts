/** Readiness: the one rule behind /readyz, /v2/health/ready and the metric `didi_ready`. */

import type { ModelRegistry } from "../engine/models/registry.ts";
import { UnavailableError } from "../errors.ts";

/**
 * Return why the server, or the model with this name, cannot run a request now; undefined if it can. Throws
 * NotFoundError for an unknown name.
 */
export function whyNotReady(models: ModelRegistry, name?: string): string | undefined {
  const asked = name === undefined ? undefined : models.find(name);
  if (!models.accepting) return "the model is still loading, or the server is shutting down";
  // Requests for it are still accepted: they wait until it is loaded.
  if (asked && !asked.isOpen) return `${asked.name} is not loaded`;
  const engines = asked?.engine ? [asked.engine] : models.engines;
  // Requests are still accepted: they wait until a worker holds the model.
  if (engines.length > 0 && engines.every(({ pool }) => pool.healthy === 0))
    return "every worker is being replaced";
  return undefined;
}

/** Throw UnavailableError if the server, or the model with this name, cannot run a request now. */
export function checkReady(models: ModelRegistry, name?: string): void {
  const reason = whyNotReady(models, name);
  if (reason !== undefined) throw new UnavailableError(reason);
}
