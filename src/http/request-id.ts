/** A name for each request, the client's own if it gives one: in answers, problems and the log. */

import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";

/** Names that are safe in a log and in a header: those of common tracers are. */
const SANE = /^[A-Za-z0-9._~:=+@/-]{1,128}$/;

const names = new WeakMap<IncomingMessage, string>();

/** The request's id: its X-Request-Id if that is sane, else a new one. The same at each call. */
export function requestIdOf(raw: IncomingMessage): string {
  const known = names.get(raw);
  if (known !== undefined) return known;
  const given = raw.headers["x-request-id"];
  const id = typeof given === "string" && SANE.test(given) ? given : randomUUID();
  names.set(raw, id);
  return id;
}
