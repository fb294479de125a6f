/** Every error the project throws on purpose. A bug is anything else. */

/** Bad flag, environment variable or setting: the process exits with `exitCode`. */
export class StartupError extends Error {
  override name = "StartupError";
  constructor(
    message: string,
    /** 2 for a command line that is wrong, 1 for a machine or file that is. */
    readonly exitCode: 1 | 2 = 1,
  ) {
    super(message);
  }
}

/** One field of a request that cannot be used. */
export interface FieldError {
  /** JSON Pointer to the field, such as `/steps`. */
  path: string;
  message: string;
}

/** The request is well-formed but asks for something this model or server cannot do. */
export class InvalidRequestError extends Error {
  override name = "InvalidRequestError";
  constructor(
    readonly fields: FieldError[],
    /** True when the request is too large rather than wrong. */
    readonly tooLarge = false,
  ) {
    super(fields.map((field) => `${field.path || "/"}: ${field.message}`).join("; "));
  }
}

/** There is no such route. */
export class NotFoundError extends Error {
  override name = "NotFoundError";
}

/** There is such a route, but not for this method. */
export class MethodNotAllowedError extends Error {
  override name = "MethodNotAllowedError";
  constructor(
    message: string,
    /** Methods that the route takes. */
    readonly allowed: readonly string[],
  ) {
    super(message);
  }
}

/** A WebSocket route was asked for without an upgrade. */
export class UpgradeRequiredError extends Error {
  override name = "UpgradeRequiredError";
}

/** No key was given, or one that is not known. */
export class UnauthorizedError extends Error {
  override name = "UnauthorizedError";
  constructor(
    message: string,
    /** True if a key was given. */
    readonly refused: boolean,
  ) {
    super(message);
  }
}

/** The request comes from a page, or to a host name, that this server does not serve. */
export class ForbiddenError extends Error {
  override name = "ForbiddenError";
}

/** A limit of the client's API key is reached. */
export class LimitReachedError extends Error {
  override name = "LimitReachedError";
  constructor(
    message: string,
    /** Its name in the key file. */
    readonly limit: LimitName,
    /** Whole seconds after which trying again makes sense; at least 1. */
    readonly retryAfter: number,
  ) {
    super(message);
  }
}

/** What an API key may be limited in. */
export type LimitName = "requests_per_minute" | "concurrent_requests" | "token_passes_per_minute";

/** The queue is full. */
export class OverloadedError extends Error {
  override name = "OverloadedError";
  constructor(
    message: string,
    /** Whole seconds after which trying again makes sense; at least 1. */
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

/** The client gave the generation up. */
export class CancelledError extends Error {
  override name = "CancelledError";
}

/** The model could not carry out a pass. */
export class ModelFailure extends Error {
  override name = "ModelFailure";
}

/** The model gave numbers that are not finite for a row, and gave them again on another worker. */
export class NonFiniteError extends ModelFailure {
  override name = "NonFiniteError";
}
