/** Raw HTTP requests. */

import type { Random } from "../traffic/random.ts";
import { bodyOf, ROUTES } from "./bodies.ts";

/** Bytes to send, and whether an answer has to come. */
export interface RawCase {
  kind: "body" | "resume" | "headers" | "framing";
  bytes: Buffer;
  /** False where the request is never whole: then only a server that goes on is asked for. */
  whole: boolean;
}

const crlf = "\r\n";
const PATHS = [
  ...[
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/model",
    "/docs",
    "/openapi.yaml",
    "/v1/models",
    "/v2",
    "/nothing",
  ],
  ...[
    "/generate/stream",
    "/v1/models/%00",
    "/v2/models/../x",
    "/%",
    "/%ff%fe",
    "//",
    "/generate?a=%zz",
    "/v1/models/a%2fb",
  ],
];
const HOSTILE_HEADERS = [
  ...[
    "content-length: -1",
    "content-length: 99999999999999999999",
    "content-length: 5, 6",
    "content-length: 0x10",
  ],
  ...[
    "transfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "expect: 100-continue",
    "expect: magic",
  ],
  ...[
    "content-type: application/json; charset=utf-16",
    "content-type: text/plain",
    "content-type: ;;;",
    "content-encoding: gzip",
  ],
  ...[
    "upgrade: websocket",
    "connection: upgrade",
    "connection: close, upgrade",
    "sec-websocket-key: x",
    "sec-websocket-version: 99",
  ],
  ...[
    "accept: text/event-stream",
    "accept: ,,,,text/event-stream;q=zzz",
    "accept:",
    "host: a, b",
    "x-forwarded-for: ,,,",
  ],
  ...[
    "traceparent: 00-zz",
    "authorization: Bearer \u00e9",
    "if-none-match: *",
    "range: bytes=0-9999999999",
    "cookie: a=b; =;;",
  ],
  ...[
    "x-request-id: ../../etc",
    "origin: null",
    "content-length: 3\r\ncontent-length: 4",
    "bad header: 1",
    ": empty",
    "x\u0000y: 1",
  ],
];

function head(method: string, path: string, headers: readonly string[]): string {
  return [`${method} ${path} HTTP/1.1`, "host: localhost", ...headers, "", ""].join(crlf);
}

const post = (path: string, body: Buffer, headers: readonly string[] = []) =>
  Buffer.concat([
    Buffer.from(
      head("POST", path, ["content-type: application/json", ...headers, `content-length: ${body.length}`]),
      "latin1",
    ),
    body,
  ]);

function lastEventId(random: Random): string {
  const near = `${random.integer(0, 1000)}:${random.integer(0, 3)}`;
  return random.pick([
    ...[
      near,
      near,
      `${near},${random.integer(0, 99_999)}`,
      "5:",
      ":1",
      "",
      "abc",
      "99999999999999999:1",
      "5:1,,2",
      "-5:1",
    ],
    ...[
      "9007199254740993:1",
      `1:${"1,".repeat(200)}`,
      "1:999999",
      "5 : 1",
      "\u00e9:1",
      "1:1:1",
      "1".repeat(8000),
    ],
  ]);
}

/** A case of any kind. */
export function requestCase(random: Random): RawCase {
  const kind = random.pick(["body", "body", "body", "body", "resume", "headers", "framing"] as const);
  const [path, make] = random.pick(ROUTES);
  if (kind === "body") return { kind, bytes: post(path, bodyOf(random, make)), whole: true };
  if (kind === "resume") {
    const extra: [string, string][] = random.chance(0.7) ? [["seed", String(random.integer(0, 1000))]] : [];
    const body = bodyOf(random, ROUTES[0]![1], extra);
    return {
      kind,
      bytes: post("/generate", body, ["accept: text/event-stream", `last-event-id: ${lastEventId(random)}`]),
      whole: true,
    };
  }
  if (kind === "headers") {
    const count = random.chance(0.02) ? 2000 : random.integer(1, 4);
    const headers = Array.from({ length: count }, (_, i) =>
      count > 4 ? `x-${i}: ${"v".repeat(20)}` : random.pick(HOSTILE_HEADERS),
    );
    if (random.chance(0.02)) headers.push(`x-long: ${"y".repeat(random.integer(1000, 100_000))}`);
    const method = random.pick([
      "GET",
      "POST",
      "HEAD",
      "OPTIONS",
      "PUT",
      "DELETE",
      "PATCH",
      "TRACE",
      "M-SEARCH",
      "FOO",
      "get",
    ]);
    const target = random.chance(0.7) ? random.pick(PATHS) : path;
    return { kind, bytes: Buffer.from(head(method, target, headers), "latin1"), whole: false };
  }
  const whole = post(path, bodyOf(random, make));
  const junk = () =>
    Buffer.from(Array.from({ length: random.integer(1, 200) }, () => random.integer(0, 255)));
  const bytes = random.pick([
    () => whole.subarray(0, random.integer(1, whole.length)),
    () => junk(),
    () => Buffer.concat([whole, junk()]),
    () => Buffer.concat([whole, whole, whole]),
    () =>
      Buffer.from(`${head("POST", path, ["transfer-encoding: chunked"])}zz${crlf}{}${crlf}0${crlf}${crlf}`),
    () => Buffer.from(`${head("POST", path, ["transfer-encoding: chunked"])}ffffffffffff${crlf}{}`),
    () => Buffer.from(`POST ${path} HTTP/9.9${crlf}${crlf}`),
    () => Buffer.from(`POST ${path}${crlf}${crlf}`),
    () => Buffer.from(`\u0016\u0003\u0001\u0002\u0000\u0001\u0000`),
    () => Buffer.from(`${crlf.repeat(100)}${head("GET", "/healthz", [])}`),
  ])();
  return { kind, bytes, whole: false };
}
