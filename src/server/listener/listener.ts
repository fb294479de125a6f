/** How connections are taken: over TLS or not, how many, how large their headers, how slow their clients. */

import { randomUUID } from "node:crypto";
import http, { type RequestListener, type Server } from "node:http";
import https from "node:https";
import type { Duplex } from "node:stream";
import { type ProblemKind, problem } from "../problem.ts";
import type { TlsFiles } from "./tls.ts";

/** Bounds of what a client may send before a route sees it. */
export interface ListenerOptions {
  /** Bytes of the request line and all headers. */
  maxHeaderBytes: number;
  /** Milliseconds in which a request must arrive whole, headers and body. */
  requestTimeoutMs: number;
  /** Connections at a time; more are closed as they come. */
  maxConnections: number;
  /** Absent: no TLS. */
  tls?: TlsFiles | undefined;
}

/** What the command line takes where nothing is said. */
export const LISTENER: ListenerOptions = {
  // Node's own.
  maxHeaderBytes: 16 * 1024,
  // A body of 1 MiB at 300 kbit/s.
  requestTimeoutMs: 30_000,
  // A socket costs some 20 KB, one with a generation more.
  maxConnections: 4096,
};

/** Milliseconds for the headers alone: they are small, whatever the line. */
const HEADERS_MS = 10_000;
/** Longer than proxies keep idle connections to use again (60 s, commonly), so that it is they who close. */
const KEEP_ALIVE_MS = 65_000;
/** Milliseconds between looks at which requests are late. */
const CHECK_MS = 1_000;
/** Milliseconds between two warnings about connections that were not taken. */
const WARNING_MS = 10_000;

/** The server beneath the application; `warn` is told of connections that were not taken. */
export function createListener(
  { maxHeaderBytes, requestTimeoutMs, maxConnections, tls }: ListenerOptions,
  handler: RequestListener,
  warn: (message: string) => void,
): Server {
  const options = {
    maxHeaderSize: maxHeaderBytes,
    requestTimeout: requestTimeoutMs,
    headersTimeout: Math.min(HEADERS_MS, requestTimeoutMs),
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: Math.min(CHECK_MS, requestTimeoutMs),
  };
  const server = tls
    ? https.createServer({ ...options, ...tls, handshakeTimeout: HEADERS_MS, minVersion: "TLSv1.2" }, handler)
    : http.createServer(options, handler);
  server.maxConnections = maxConnections;
  // A client that sends no more still gets its answer; in-flight.ts tells it from one that has gone.
  Object.assign(server, { httpAllowHalfOpen: true });
  let warnedAt = Number.NEGATIVE_INFINITY;
  server.on("drop", () => {
    if (performance.now() - warnedAt < WARNING_MS) return;
    warnedAt = performance.now();
    warn(`${maxConnections} connections are open: more are closed as they come (--max-connections)`);
  });
  return server;
}

/** What Node's parser and clock find, as problems. */
const CLIENT_ERRORS: Record<string, [kind: ProblemKind, detail: string]> = {
  HPE_HEADER_OVERFLOW: ["headers-too-large", "the headers are larger than the server takes: send fewer"],
  ERR_SSL_HTTP_REQUEST: ["invalid-request", "this port takes HTTPS: begin the address with https://"],
  ERR_HTTP_REQUEST_TIMEOUT: ["request-timeout", "the request did not arrive whole in time: send it faster"],
};

/** The connection to answer on: what is no TLS is answered beneath it. */
const answerable = (code: string | undefined, socket: Duplex) =>
  (code === "ERR_SSL_HTTP_REQUEST" && (socket as { _parent?: Duplex })._parent) || socket;

/** Answers what is no request, or too slow to become one, and ends its connection. */
export function refuseClient(error: NodeJS.ErrnoException, connection: Duplex): void {
  const socket = answerable(error.code, connection);
  // The answer of an earlier request may be on its way.
  const answering = (socket as { _httpMessage?: { _headerSent?: boolean } | null })._httpMessage?._headerSent;
  if (error.code === "ECONNRESET" || !socket.writable || answering) return void socket.destroy();
  const [kind, detail] = CLIENT_ERRORS[error.code ?? ""] ?? ["invalid-request", "this is not HTTP/1.1"];
  const { status, title, ...rest } = problem(kind, detail);
  const request_id = randomUUID();
  const body = JSON.stringify({ ...rest, title, status, request_id });
  const head = [
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}`,
    "content-type: application/problem+json",
    `content-length: ${Buffer.byteLength(body)}`,
    `x-request-id: ${request_id}`,
    "connection: close",
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
  // One that does not read the answer is not waited for.
  setTimeout(() => socket.destroy(), 1000).unref();
}
