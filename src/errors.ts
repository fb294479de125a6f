/** The errors that the project throws deliberately. Any other error is a bug. */

/** A command cannot run: the process prints the message and exits with `exitCode`. */
export class StartupError extends Error {
  override name = "StartupError";
  constructor(
    message: string,
    /** 2 for a wrong command line, 1 for a problem of a file or the machine. */
    readonly exitCode: 1 | 2 = 1,
  ) {
    super(message);
  }
}

/** One invalid field of a request. */
export interface FieldError {
  /** JSON Pointer of the field, such as `/steps`. */
  path: string;
  message: string;
}

/** The request is well-formed, but this model or server cannot carry it out. */
export class InvalidRequestError extends Error {
  override name = "InvalidRequestError";
  constructor(
    readonly fields: FieldError[],
    /** True if the request is too large rather than wrong. */
    readonly tooLarge = false,
  ) {
    super(fields.map((field) => `${field.path || "/"}: ${field.message}`).join("; "));
  }
}

/** Return the JSON Pointer of a field of the object at `path`. */
export const fieldPath = (path: string, name: string) =>
  `${path}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;

/** Return the error of one invalid field, to throw. `path` is its JSON Pointer; the whole body's is empty. */
export const invalid = (path: string, message: string, tooLarge = false) =>
  new InvalidRequestError([{ path, message }], tooLarge);

/** The route does not exist. */
export class NotFoundError extends Error {
  override name = "NotFoundError";
}

/** The route does not support this method. */
export class MethodNotAllowedError extends Error {
  override name = "MethodNotAllowedError";
  constructor(
    message: string,
    /** Methods that the route supports. */
    readonly allowed: readonly string[],
  ) {
    super(message);
  }
}

/** A request to a WebSocket route without an upgrade. */
export class UpgradeRequiredError extends Error {
  override name = "UpgradeRequiredError";
}

/** No API key was sent, or an unknown one. */
export class UnauthorizedError extends Error {
  override name = "UnauthorizedError";
  constructor(
    message: string,
    /** True if a key was sent. */
    readonly refused: boolean,
  ) {
    super(message);
  }
}

/** The origin or the host name of the request is not allowed. */
export class ForbiddenError extends Error {
  override name = "ForbiddenError";
}

/** A limit of the client's API key is reached. */
export class LimitReachedError extends Error {
  override name = "LimitReachedError";
  constructor(
    message: string,
    /** Name of the limit in the key file. */
    readonly limit: LimitName,
    /** Whole seconds after which to try again; at least 1. */
    readonly retryAfter: number,
  ) {
    super(message);
  }
}

/** The limits that an API key can have. */
export type LimitName = "requests_per_minute" | "concurrent_requests" | "token_passes_per_minute";

/** The queue is full. */
export class OverloadedError extends Error {
  override name = "OverloadedError";
  constructor(
    message: string,
    /** Whole seconds after which to try again; at least 1. */
    readonly retryAfter: number,
  ) {
    super(message);
  }
}

/** The server is not ready, or is shutting down. */
export class UnavailableError extends Error {
  override name = "UnavailableError";
  constructor(
    message: string,
    readonly retryAfter = 1,
  ) {
    super(message);
  }
}

/** The client cancelled the request. */
export class CancelledError extends Error {
  override name = "CancelledError";
}

/** A worker could not run a batch. */
export class ModelFailure extends Error {
  override name = "ModelFailure";
}

/** A batch ended the workers that ran it, and the last one for lack of memory. */
export class MemoryFailure extends ModelFailure {
  override name = "MemoryFailure";
}

/** The model returned numbers that are not finite for a row, confirmed by a second worker. */
export class NonFiniteError extends ModelFailure {
  override name = "NonFiniteError";
}
