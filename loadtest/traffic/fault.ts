/** Why a request counts as an error. */

import { DidiError } from "../../src/client/index.ts";

/** The answer did not come, or does not fit the request. Errors are counted by `kind`. */
export class Fault extends Error {
  override name = "Fault";
  constructor(
    readonly kind: string,
    message = kind,
  ) {
    super(message);
  }
}

/** Return the kind of an error of a request. An unknown error is about the answer: "malformed". */
export function faultKind(error: unknown): string {
  if (error instanceof Fault) return error.kind;
  if (error instanceof DidiError) return error.status === undefined ? "connection" : `status ${error.status}`;
  if (error instanceof DOMException) return error.name === "TimeoutError" ? "timeout" : "interrupted";
  return "malformed";
}
