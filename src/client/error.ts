/** The error of the client, made from error responses and broken connections. */

import type { Problem } from "./types.ts";

/** Statuses that are worth a retry: of the server (429, 503) and of a proxy in front of it (502, 504). */
const RETRYABLE = [429, 502, 503, 504];

/** Fields of a DidiError; without a response only `retryable` is set. */
interface Facts {
  status?: number | undefined;
  problem?: Problem | undefined;
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
  retryable: boolean;
  cause?: unknown;
}

/** A request was refused or failed. Aborting the signal throws its reason instead of a DidiError. */
export class DidiError extends Error {
  override name = "DidiError";
  /** HTTP status, 400 to 599; undefined if the connection failed. */
  readonly status: number | undefined;
  /** The server's problem object; undefined if the connection failed or another program answered. */
  readonly problem: Problem | undefined;
  /** Identifies the request in the server's log. */
  readonly requestId: string | undefined;
  /** Milliseconds to wait before a retry, if the server gave them. */
  readonly retryAfterMs: number | undefined;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;

  constructor(message: string, { status, problem, requestId, retryAfterMs, retryable, cause }: Facts) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
    this.problem = problem;
    this.requestId = requestId;
    this.retryAfterMs = retryAfterMs;
    this.retryable = retryable;
  }
}

/** Return the error for a problem object of a response or of an `error` event. */
export function problemError(problem: Problem, headers?: Headers): DidiError {
  const { status, title, detail, request_id, retry_after } = problem;
  return new DidiError(`${title} (${status}): ${detail}`, {
    status,
    problem,
    requestId: request_id ?? headers?.get("x-request-id") ?? undefined,
    retryAfterMs: retryAfter(headers) ?? (retry_after === undefined ? undefined : retry_after * 1000),
    retryable: RETRYABLE.includes(status),
  });
}

/** Return the error for a response whose status is not 2xx. Never throws: an unreadable body is ignored. */
export async function answerError(response: Response): Promise<DidiError> {
  const { status, headers } = response;
  const body = await response.text().catch(() => "");
  const problem = parseProblem(body);
  if (problem) return problemError(problem, headers);
  return new DidiError(
    `status ${status} without a problem object: check that ${response.url} is a didi-serve, ` +
      "and the proxy in front of it",
    {
      status,
      requestId: headers.get("x-request-id") ?? undefined,
      retryAfterMs: retryAfter(headers),
      retryable: RETRYABLE.includes(status),
    },
  );
}

/** Return the error for a connection that could not be opened or broke. */
export function connectionError(message: string, retryable: boolean, cause?: unknown): DidiError {
  return new DidiError(message, { retryable, cause });
}

/** Parse a body as JSON. Throws DidiError if it is not JSON. */
export function parseBody<T>(text: string, url: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw connectionError(`the response of ${url} is not JSON: check that it is a didi-serve`, false, cause);
  }
}

function parseProblem(text: string): Problem | undefined {
  try {
    const value = JSON.parse(text) as Partial<Problem> | null;
    return typeof value?.type === "string" && typeof value.status === "number"
      ? (value as Problem)
      : undefined;
  } catch {
    return undefined;
  }
}

/** Return Retry-After, given in seconds or as a date, in milliseconds from now. */
function retryAfter(headers: Headers | undefined): number | undefined {
  const value = headers?.get("retry-after");
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
