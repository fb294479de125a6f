/** The record of a running request for log, traces and metrics. It holds no prompt and no text. */

import type { FastifyReply, FastifyRequest } from "fastify";
import type { Answer } from "../../engine/answers/answer.ts";
import type { RequestHandle } from "../../engine/subscriber.ts";
import { type Problem, type ProblemKind, toProblem } from "../problem.ts";
import { pathWithoutKeys } from "./logger.ts";

/** Receives the records of HTTP requests and of WebSocket messages. */
export interface TelemetrySink {
  begin?(record: RequestRecord): void;
  /** The engine has accepted a request. */
  accepted?(record: RequestRecord, handle: RequestHandle): void;
  /** The record is complete; called once. */
  end(record: RequestRecord): void;
}

/**
 * One HTTP request or one WebSocket message. A WebSocket itself is an HTTP request that ends when it closes.
 */
export class RequestRecord {
  /** Answers so far. */
  readonly answers: Answer[] = [];
  /** Ids of the accepted requests. */
  readonly ids: string[] = [];
  status = 0;
  /** Kind of the error, if there was one. */
  problem: ProblemKind | undefined;
  /** Id of its trace, if it is traced. */
  traceId: string | undefined;
  readonly #startedAt = performance.now();
  #over = false;

  constructor(
    readonly request: FastifyRequest,
    readonly sinks: readonly TelemetrySink[],
    /** The record of the socket, for a message. */
    readonly parent?: RequestRecord,
  ) {
    for (const sink of sinks) sink.begin?.(this);
  }

  /** The pattern of the route, such as `/v1/models/:model`; `none` for an unknown path. */
  get route(): string {
    return this.request.routeOptions?.url ?? "none";
  }

  /** The path without the query, its keys redacted. */
  get path(): string {
    return pathWithoutKeys(this.request.url.split("?")[0]!);
  }

  /** True for a WebSocket and for its messages. */
  get socket(): boolean {
    return this.request.headers.upgrade !== undefined;
  }

  /** Milliseconds since the request arrived. */
  get totalMs(): number {
    return performance.now() - this.#startedAt;
  }

  /** Return a record for a message of this socket. */
  message(): RequestRecord {
    return new RequestRecord(this.request, this.sinks, this);
  }

  /** Add accepted requests; their answers are added as they arrive. */
  add(...handles: readonly RequestHandle[]): void {
    for (const handle of handles) {
      this.ids.push(handle.id);
      for (const sink of this.sinks) sink.accepted?.(this, handle);
      handle.result.then(
        (answer) => this.answers.push(answer),
        () => {}, // The caller reports the error.
      );
    }
  }

  /** Set the problem of the answer. */
  fail({ type, status }: Problem): void {
    this.problem = type.split(":").at(-1) as ProblemKind;
    this.status = status;
  }

  /** Complete the record, with this status unless it failed. A second call does nothing. */
  end(status: number): void {
    if (this.#over) return;
    this.#over = true;
    if (!this.problem) this.status = status;
    for (const sink of this.sinks) sink.end(this);
  }
}

const records = new WeakMap<FastifyRequest, RequestRecord>();

/** Return the record of a request, which exists from the first hook on. */
export function recordOf(request: FastifyRequest): RequestRecord | undefined {
  return records.get(request);
}

/** Return the problem of a request that failed, with the request's id. Record it, and log a bug. */
export function failed(request: FastifyRequest, error: unknown): Problem {
  const { problem, bug } = toProblem(error);
  if (bug) request.log.error({ err: error }, "request failed");
  recordOf(request)?.fail(problem);
  return { ...problem, request_id: request.id };
}

/** Status of a request whose client left before its answer; nginx uses the same. */
const CLIENT_GONE = 499;

/** Begin the record of a request; it ends with the answer or the connection. */
export function beginRecord(
  request: FastifyRequest,
  reply: FastifyReply,
  sinks: readonly TelemetrySink[],
): RequestRecord {
  const record = new RequestRecord(request, sinks);
  records.set(request, record);
  const { raw } = reply;
  // setImmediate: an error is answered and recorded first.
  raw.once("close", () =>
    setImmediate(() => record.end(raw.headersSent ? raw.statusCode : record.socket ? 101 : CLIENT_GONE)),
  );
  return record;
}
