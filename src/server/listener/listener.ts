/** The HTTP server below Fastify: TLS, and limits on connections, headers and time. */

import { randomUUID } from "node:crypto";
import http, { type RequestListener, type Server } from "node:http";
import https from "node:https";
import type { Duplex } from "node:stream";
import { type ProblemKind, problem } from "../problem.ts";
import type { TlsFiles } from "./tls.ts";

/** Limits that apply before a route sees a request. */
export interface ListenerOptions {
  /** Bytes of the request line and all headers. */
  maxHeaderBytes: number;
  /** Milliseconds in which a whole request must arrive, headers and body. */
  requestTimeoutMs: number;
  /** Connections at a time; further ones are closed. */
  maxConnections: number;
  /** Absent: no TLS. */
  tls?: TlsFiles | undefined;
}

/** Defaults of the command line. */
export const LISTENER: ListenerOptions = {
  // The default of Node.
  maxHeaderBytes: 16 * 1024,
  // A body of 1 MiB at 300 kbit/s.
  requestTimeoutMs: 30_000,
  // A connection takes about 20 KB, with a running request more.
  maxConnections: 4096,
};

/** Milliseconds in which the headers must arrive; they are small even on a slow line. */
const HEADERS_MS = 10_000;
/** Longer than proxies keep idle connections (commonly 60 s): the proxy must be the side that closes. */
const KEEP_ALIVE_MS = 65_000;
/** Milliseconds between checks for late requests. */
const CHECK_MS = 1_000;
/** Milliseconds between two warnings about refused connections. */
const WARNING_MS = 10_000;

/** Create the HTTP server; it calls `warn` when it refuses connections. */
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
  // A client may close its sending side and wait for the answer; in-flight.ts detects those that are gone.
  Object.assign(server, { httpAllowHalfOpen: true });
  let warnedAt = Number.NEGATIVE_INFINITY;
  server.on("drop", () => {
    if (performance.now() - warnedAt < WARNING_MS) return;
    warnedAt = performance.now();
    warn(`${maxConnections} connections are open: further ones are closed (--max-connections)`);
  });
  return server;
}

/** Errors of Node's parser and timeouts as problems. */
const CLIENT_ERRORS: Record<string, [kind: ProblemKind, detail: string]> = {
  HPE_HEADER_OVERFLOW: ["headers-too-large", "the headers are above the limit: send fewer or shorter ones"],
  ERR_SSL_HTTP_REQUEST: ["invalid-request", "this port speaks HTTPS: use an https:// address"],
  ERR_HTTP_REQUEST_TIMEOUT: ["request-timeout", "the whole request did not arrive in time: send it faster"],
};

/** First byte of a TLS connection. */
const TLS_HANDSHAKE = 0x16;
const NOT_TLS =
  "this port takes plain HTTP: begin the address with http://, " +
  "or start the server with --tls-cert and --tls-key";

/** Return the socket to answer on: plain HTTP on a TLS port is answered without TLS. */
const answerable = (code: string | undefined, socket: Duplex) =>
  (code === "ERR_SSL_HTTP_REQUEST" && (socket as { _parent?: Duplex })._parent) || socket;

/** Answer a malformed or late request and close its connection. */
export function refuseClient(error: NodeJS.ErrnoException, connection: Duplex): void {
  const socket = answerable(error.code, connection);
  // The answer to an earlier request may be in transit.
  const answering = (socket as { _httpMessage?: { _headerSent?: boolean } | null })._httpMessage?._headerSent;
  if (error.code === "ECONNRESET" || !socket.writable || answering) return void socket.destroy();
  const { code = "", rawPacket } = error as NodeJS.ErrnoException & { rawPacket?: Buffer };
  const other = rawPacket?.[0] === TLS_HANDSHAKE ? NOT_TLS : "this is not HTTP/1.1";
  const [kind, detail] = CLIENT_ERRORS[code] ?? ["invalid-request", other];
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
  // Do not wait for a client that does not read the answer.
  setTimeout(() => socket.destroy(), 1000).unref();
}
