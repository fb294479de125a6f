/** Errors as RFC 9457 problem objects. A bug shows its request id and nothing of the server's internals. */

import {
  CancelledError,
  type FieldError,
  ForbiddenError,
  InvalidRequestError,
  LimitReachedError,
  MethodNotAllowedError,
  ModelFailure,
  NotFoundError,
  OverloadedError,
  UnauthorizedError,
  UnavailableError,
  UpgradeRequiredError,
} from "../errors.ts";
import type { Schemas } from "./openapi.ts";

export type Problem = Schemas["Problem"];

/** A problem, and whether a bug of the server caused it. */
export interface ProblemAnswer {
  problem: Problem;
  /** True if the server is at fault; the error then goes to the log. */
  bug: boolean;
}

/** Status and title of each kind of problem. */
export const KINDS = {
  "invalid-request": [400, "The request is not valid"],
  "invalid-json": [400, "The body is not JSON"],
  unauthorized: [401, "API key required"],
  forbidden: [403, "Origin or host not allowed"],
  "not-found": [404, "Not found"],
  "method-not-allowed": [405, "Method not allowed"],
  "request-timeout": [408, "The request took too long to arrive"],
  "too-large": [413, "The request is too large"],
  "unsupported-media-type": [415, "The body must be JSON"],
  "upgrade-required": [426, "This route is a WebSocket"],
  overloaded: [429, "Too many requests"],
  "limit-reached": [429, "A limit of the API key is reached"],
  "headers-too-large": [431, "The headers are too large"],
  cancelled: [499, "The request was cancelled"],
  internal: [500, "Internal server error"],
  "model-failure": [500, "The model could not run"],
  unavailable: [503, "The server is unavailable"],
} as const;

/** Kind of problem: the last part of its `type`. */
export type ProblemKind = keyof typeof KINDS;

function head(kind: ProblemKind): Pick<Problem, "type" | "title" | "status"> {
  const [status, title] = KINDS[kind];
  return { type: `urn:didi-serve:problem:${kind}`, title, status };
}

/** Create a problem object. */
export function problem(kind: ProblemKind, detail: string, errors?: FieldError[]): Problem {
  return { ...head(kind), detail, ...(errors && { errors }) };
}

/** Create the problem of an invalid request, with one entry for each field. */
export function invalidRequest(errors: FieldError[], kind: ProblemKind = "invalid-request"): Problem {
  return problem(
    kind,
    errors.map(({ path, message }) => `${path || "the body"} ${message}`).join("; "),
    errors,
  );
}

/** Create the answer to an error that is not the fault of the server. */
const expected = (kind: ProblemKind, detail: string): ProblemAnswer => ({
  problem: problem(kind, detail),
  bug: false,
});

/** Return the answer to an error. */
export function toProblem(error: unknown): ProblemAnswer {
  if (error instanceof InvalidRequestError) {
    const kind = error.tooLarge ? "too-large" : "invalid-request";
    return { problem: invalidRequest(error.fields, kind), bug: false };
  }
  if (error instanceof UnauthorizedError) return expected("unauthorized", error.message);
  if (error instanceof ForbiddenError) return expected("forbidden", error.message);
  if (error instanceof LimitReachedError) {
    const { limit, retryAfter: retry_after } = error;
    return { problem: { ...problem("limit-reached", error.message), retry_after, limit }, bug: false };
  }
  if (error instanceof NotFoundError) return expected("not-found", error.message);
  if (error instanceof MethodNotAllowedError) return expected("method-not-allowed", error.message);
  if (error instanceof UpgradeRequiredError) return expected("upgrade-required", error.message);
  if (error instanceof OverloadedError || error instanceof UnavailableError) {
    const kind = error instanceof OverloadedError ? "overloaded" : "unavailable";
    return { problem: { ...problem(kind, error.message), retry_after: error.retryAfter }, bug: false };
  }
  if (error instanceof CancelledError) return expected("cancelled", "cancelled by the client");
  if (error instanceof ModelFailure) {
    const detail = "the model failed on this request; the log says why";
    return { problem: problem("model-failure", detail), bug: true };
  }
  return fromFramework(error);
}

/** Return the answer to an error of Fastify, which has a code and a status. */
function fromFramework(error: unknown): ProblemAnswer {
  const { code, statusCode, message } = error as { code?: string; statusCode?: number; message?: string };
  switch (code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
      return expected("too-large", "the body is above the limit: shorten the prompt");
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
      return expected("unsupported-media-type", "send content-type: application/json");
    case "FST_ERR_CTP_EMPTY_JSON_BODY":
      return expected("invalid-json", "the body is empty; send a JSON object");
    case "FST_ERR_CTP_INVALID_JSON_BODY":
      return expected("invalid-json", `the body cannot be parsed: ${message}`);
  }
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return expected("invalid-request", message ?? "the request cannot be used");
  const detail = "a bug in the server; quote the request id when you report it";
  return { problem: problem("internal", detail), bug: true };
}
