/** Ids of requests, for Fastify's `genReqId`: they stand in answers, problems and the log. */

import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { holdsKey } from "./telemetry/logger.ts";

/** Ids that are safe in a log and in a header; common tracers' ids are. */
const SAFE = /^[A-Za-z0-9._~:=+@/-]{1,128}$/;

/** Return the client's own X-Request-Id if it is safe and holds no API key, else a new id. */
export function requestIdOf({ headers }: { headers: IncomingHttpHeaders }): string {
  const given = headers["x-request-id"];
  return typeof given === "string" && SAFE.test(given) && !holdsKey(given) ? given : randomUUID();
}
