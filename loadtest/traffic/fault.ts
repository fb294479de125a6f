/** Why a request counts as an error. */

import { DidiError } from "../../src/client/index.ts";

/** The answer did not come, or is not what was asked for. `kind` is what errors are counted by. */
export class Fault extends Error {
  override name = "Fault";
  constructor(
    readonly kind: string,
    message = kind,
  ) {
    super(message);
  }
}

/** The kind of what was thrown while a request was under way. Anything unforeseen is about the answer: "malformed". */
export function faultKind(error: unknown): string {
  if (error instanceof Fault) return error.kind;
  if (error instanceof DidiError) return error.status === undefined ? "connection" : `status ${error.status}`;
  if (error instanceof DOMException) return error.name === "TimeoutError" ? "timeout" : "interrupted";
  return "malformed";
}
