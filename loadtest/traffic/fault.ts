/** Errors of requests by kind. */

import { DidiError } from "../../src/client/index.ts";

/** There is no answer, or it does not fit the request. Errors are counted by `kind`. */
export class Fault extends Error {
  override name = "Fault";
  constructor(
    readonly kind: string,
    message = kind,
  ) {
    super(message);
  }
}

/**
 * Return the kind of an error of a request; "malformed" for unknown errors, which parsing the answer causes.
 */
export function faultKind(error: unknown): string {
  if (error instanceof Fault) return error.kind;
  if (error instanceof DidiError) return error.status === undefined ? "connection" : `status ${error.status}`;
  if (error instanceof DOMException) return error.name === "TimeoutError" ? "timeout" : "interrupted";
  return "malformed";
}
