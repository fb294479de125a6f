/** The client's error, and how answers and broken connections become one. */

import type { Problem } from "./types.ts";

/** Statuses after which the same request may be answered: of the server (429, 503), of a proxy before it (502, 504). */
const PASSING = [429, 502, 503, 504];

/** What a DidiError knows; all absent when no answer came. */
interface Facts {
  status?: number | undefined;
  problem?: Problem | undefined;
  requestId?: string | undefined;
  retryAfterMs?: number | undefined;
  retryable: boolean;
  cause?: unknown;
}

/** A request was refused, failed on the way, or failed in the server. Cancelling is none: it throws the signal's reason. */
export class DidiError extends Error {
  override name = "DidiError";
  /** HTTP status, 400 to 599; undefined if the connection failed. */
  readonly status: number | undefined;
  /** The server's problem object; undefined if the connection failed, or something else answered. */
  readonly problem: Problem | undefined;
  /** Finds the request in the server's log. */
  readonly requestId: string | undefined;
  /** Milliseconds to wait before another try, if the server said so. */
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

/** The error of a problem object, from an answer or an `error` event. */
export function problemError(problem: Problem, headers?: Headers): DidiError {
  const { status, title, detail, request_id, retry_after } = problem;
  return new DidiError(`${title} (${status}): ${detail}`, {
    status,
    problem,
    requestId: request_id ?? headers?.get("x-request-id") ?? undefined,
    retryAfterMs: retryAfter(headers) ?? (retry_after === undefined ? undefined : retry_after * 1000),
    retryable: PASSING.includes(status),
  });
}

/** The error of an answer that is none of 2xx. Never throws: a body that cannot be read is left out. */
export async function answerError(response: Response): Promise<DidiError> {
  const { status, headers } = response;
  const body = await response.text().catch(() => "");
  const problem = parseProblem(body);
  if (problem) return problemError(problem, headers);
  return new DidiError(
    `status ${status} without a problem object: is ${response.url} a didi-serve, and what stands before it?`,
    {
      status,
      requestId: headers.get("x-request-id") ?? undefined,
      retryAfterMs: retryAfter(headers),
      retryable: PASSING.includes(status),
    },
  );
}

/** The error of a connection that could not be made, or broke. */
export function connectionError(message: string, retryable: boolean, cause?: unknown): DidiError {
  return new DidiError(message, { retryable, cause });
}

/** A body as the contract has it. Throws DidiError if it is not JSON. */
export function parseBody<T>(text: string, url: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw connectionError(`what ${url} sent is not JSON: is it a didi-serve?`, false, cause);
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

/** Retry-After in milliseconds from now: seconds, or a date. */
function retryAfter(headers: Headers | undefined): number | undefined {
  const value = headers?.get("retry-after");
  if (!value) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
