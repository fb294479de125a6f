/** Readiness: the one rule behind /readyz, /v2/health/ready and the metric `didi_ready`. */

import type { Engine } from "../engine/engine.ts";
import { UnavailableError } from "../errors.ts";

/** Return why the server cannot run a request now; undefined if it can. */
export function whyNotReady(engine: Engine): string | undefined {
  if (!engine.accepting) return "the model is still loading, or the server is shutting down";
  // Requests are still accepted: they wait until a worker holds the model.
  if (engine.pool.healthy === 0) return "every worker is being replaced";
  return undefined;
}

/** Throw UnavailableError if the server cannot run a request now. */
export function checkReady(engine: Engine): void {
  const reason = whyNotReady(engine);
  if (reason !== undefined) throw new UnavailableError(reason);
}
