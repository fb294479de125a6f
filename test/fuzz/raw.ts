/** Arbitraries of fast-check for invalid bytes: HTTP requests and WebSocket frames. */

import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { bodyText } from "./support.ts";

/** Bytes to send. */
export interface RawCase {
  kind: "request" | "frames";
  bytes: Buffer;
  /**
   * Whether the bytes are complete, so that an answer must come; otherwise silence or a closed connection is
   * allowed.
   */
  whole: boolean;
}

const crlf = "\r\n";

/** Bodies that are hard to parse: deep, wide, truncated, not JSON, not UTF-8. */
const hostileBody = fc.oneof(
  fc.constantFrom(
    "",
    "{,}",
    "[,]",
    "NaN",
    '{"seed":1e400}',
    '{"seed":0x10}',
    '{"prompt":"\\ud800"}',
    '{"a":01}',
  ),
  fc
    .tuple(
      fc.constantFrom(["[", "]"] as const, ['{"a":', "}"] as const, ['{"__proto__":', "}"] as const),
      fc.oneof(
        { weight: 20, arbitrary: fc.nat({ max: 200 }) },
        { weight: 1, arbitrary: fc.constant(50_000) },
      ),
      fc.boolean(),
    )
    .map(([[open, close], depth, closed]) => `${open.repeat(depth)}1${closed ? close.repeat(depth) : ""}`),
  fc.nat({ max: 70_000 }).map((count) => `{"prompt_tokens":[${"9,".repeat(count)}9],"steps":1}`),
  fc.nat({ max: 60_000 }).map((count) => `{${Array.from({ length: count }, (_, i) => `"f${i}":0`)}}`),
  fc
    .tuple(
      fc.constantFrom("a", "🙂", "{{", "{{mask:1}}", "{{mask", "\\", "\u0000", "\u202e"),
      fc.nat({ max: 60_000 }),
    )
    .map(([unit, count]) => JSON.stringify({ template: unit.repeat(count), steps: 1 })),
);
const body: fc.Arbitrary<Buffer> = fc
  .tuple(
    fc.oneof({ weight: 8, arbitrary: bodyText }, { weight: 2, arbitrary: hostileBody }),
    fc.option(fc.nat({ max: 100 }), { freq: 10 }),
    fc.constantFrom(0xff, 0xc0, 0x00, 0xed),
  )
  .map(([text, at, byte]) => {
    const bytes = Buffer.from(text);
    if (at !== null && at < bytes.length) bytes[at] = byte;
    return bytes;
  });

const ROUTES = ["/generate", "/v1/completions", "/v2/models/tiny-guided/infer"];
const PATHS = [
  ...[
    "/",
    "/healthz",
    "/metrics",
    "/docs",
    "/openapi.yaml",
    "/v1/models",
    "/nothing",
    "/generate/stream",
    "//",
  ],
  ...["/v1/models/%00", "/v2/models/../x", "/%", "/%ff%fe", "/generate?a=%zz", "/v1/models/a%2fb"],
];
const METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "M-SEARCH", "FOO", "get"];
const HEADERS = [
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
  ...["content-type: application/json; charset=utf-16", "content-type: ;;;", "content-encoding: gzip"],
  ...["upgrade: websocket", "connection: upgrade", "connection: close, upgrade", "sec-websocket-version: 99"],
  ...["accept: ,,,,text/event-stream;q=zzz", "accept:", "host: a, b", "x-forwarded-for: ,,,", "origin: null"],
  ...["traceparent: 00-zz", "authorization: Bearer \u00e9", "if-none-match: *", "cookie: a=b; =;;"],
  ...["range: bytes=0-9999999999", "x-request-id: ../../etc", "content-length: 3\r\ncontent-length: 4"],
  ...["bad header: 1", ": empty", "x\u0000y: 1", `x-long: ${"y".repeat(100_000)}`],
];
const EVENT_IDS = [
  "5:",
  ":1",
  "",
  "99999999999999999:1",
  "5:1,,2",
  "-5:1",
  `1:${"1,".repeat(200)}`,
  "5 : 1",
  "1:1:1",
];

/** Return the head of an HTTP request. */
export const head = (method: string, path: string, headers: readonly string[]) =>
  [`${method} ${path} HTTP/1.1`, "host: localhost", ...headers, "", ""].join(crlf);
const post = (path: string, content: Buffer, ...headers: string[]) => {
  const own = ["content-type: application/json", `content-length: ${content.length}`, "connection: close"];
  return Buffer.concat([Buffer.from(head("POST", path, [...own, ...headers]), "latin1"), content]);
};
const request = (bytes: Buffer | string, whole = false): RawCase => ({
  ...{ kind: "request" as const, whole },
  bytes: typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes,
});

/** A complete POST, a resumption of an event stream, or a request with a wrong head or framing. */
export const rawRequest: fc.Arbitrary<RawCase> = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(fc.constantFrom(...ROUTES), body).map((p) => request(post(...p), true)) },
  fc
    .tuple(
      body,
      fc.oneof(
        fc.constantFrom(...EVENT_IDS),
        fc.tuple(fc.nat(), fc.nat()).map((p) => p.join(":")),
      ),
    )
    .map(([content, id]) =>
      request(post("/generate", content, "accept: text/event-stream", `last-event-id: ${id}`), true),
    ),
  fc
    .tuple(
      fc.constantFrom(...METHODS),
      fc.constantFrom(...PATHS, ...ROUTES),
      fc.array(fc.constantFrom(...HEADERS), { minLength: 1, maxLength: 4 }),
    )
    .map((parts) => request(head(...parts))),
  fc
    .tuple(
      fc.constantFrom(...ROUTES),
      body,
      fc.uint8Array({ minLength: 1, maxLength: 200 }),
      fc.nat({ max: 6 }),
    )
    .map(([path, content, junk, way]) => {
      const whole = post(path, content);
      const chunked = head("POST", path, ["content-type: application/json", "transfer-encoding: chunked"]);
      const cases = [
        whole.subarray(0, 1 + (junk[0]! * whole.length) / 256),
        Buffer.from(junk),
        Buffer.concat([whole, junk]),
        `${chunked}zz${crlf}{}${crlf}0${crlf}${crlf}`,
        `${chunked}ffffffffffff${crlf}{}`,
        `POST ${path} HTTP/9.9${crlf}${crlf}`,
        head(
          "GET",
          "/healthz",
          Array.from({ length: 2000 }, (_, i) => `x-${i}: ${"v".repeat(20)}`),
        ),
      ];
      return request(cases[way]!);
    }),
);

const [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] = [0, 1, 2, 8, 9, 10];

/**
 * A WebSocket frame (RFC 6455). `rsv` are the reserved bits, 4 is compression; `says` is the declared length.
 */
function frame(
  opcode: number,
  payload: Buffer,
  { fin = true, rsv = 0, masked = true, says = BigInt(payload.length) } = {},
): Buffer {
  const bit = masked ? 0x80 : 0;
  let length = Buffer.of(
    bit | Number(says < 126n ? says : 126n),
    Number((says >> 8n) & 255n),
    Number(says & 255n),
  );
  if (says < 126n) length = length.subarray(0, 1);
  else if (says >= 65_536n) {
    length = Buffer.alloc(9, bit | 127);
    length.writeBigUInt64BE(says, 1);
  }
  // A key of zeros leaves the payload as it is.
  const key = Buffer.alloc(masked ? 4 : 0);
  return Buffer.concat([Buffer.of((fin ? 0x80 : 0) | (rsv << 4) | opcode), length, key, payload]);
}

/** Forty megabytes in forty kilobytes. */
const BOMB = deflateRawSync(Buffer.alloc(40_000_000, 0x20));
const text = (content: string) => Buffer.from(content);
const WRONG = [
  ...[3, 4, 5, 6, 7, 11, 12, 15, BINARY, CONTINUATION].map((opcode) => frame(opcode, text("x"))),
  ...[1, 2, 4, 7].map((rsv) => frame(TEXT, text("not deflated"), { rsv })),
  ...[1n << 62n, (1n << 64n) - 1n].map((says) => frame(TEXT, text("{"), { says })),
  ...[Buffer.of(3), Buffer.of(0, 0), Buffer.of(255, 255), Buffer.of(3, 232, 255, 255)].map((p) =>
    frame(CLOSE, p),
  ),
  ...[frame(TEXT, Buffer.of(0xff, 0xfe, 0xc0, 0x80)), frame(TEXT, Buffer.alloc(1_100_000, 0x20))],
  ...[frame(TEXT, text("{}"), { masked: false }), frame(PING, Buffer.alloc(126))],
  ...[frame(PING, text("x"), { fin: false }), frame(PONG, text("unasked")), frame(TEXT, BOMB, { rsv: 4 })],
];
const message = fc.oneof(
  {
    weight: 4,
    arbitrary: bodyText.map((content) => text(`{"type":"generate","id":"a",${content.slice(1)}`)),
  },
  { weight: 1, arbitrary: body },
);
const pieces = fc
  .tuple(message, fc.array(fc.nat({ max: 400 }), { minLength: 1, maxLength: 5 }))
  .map(([whole, cuts]) => {
    const bounds = [
      0,
      ...cuts.map((cut) => Math.min(cut, whole.length)).toSorted((a, b) => a - b),
      whole.length,
    ];
    const parts = bounds.slice(1).map((end, i) => whole.subarray(bounds[i], end));
    return Buffer.concat(
      parts.map((part, i) => frame(i === 0 ? TEXT : CONTINUATION, part, { fin: i === parts.length - 1 })),
    );
  });

/** Whole and fragmented messages and wrong frames after an upgrade; a ping comes last. */
export const rawFrames: fc.Arbitrary<RawCase> = fc
  .tuple(
    fc.array(
      fc.oneof(
        fc.constantFrom(...WRONG),
        pieces,
        message.map((m) => frame(TEXT, m)),
      ),
      {
        ...{ minLength: 1, maxLength: 3 },
      },
    ),
    fc.option(fc.uint8Array({ minLength: 1, maxLength: 100 }), { freq: 12 }),
  )
  .map(([frames, junk]) => ({
    kind: "frames",
    bytes: Buffer.concat([...frames, ...(junk ? [junk] : []), frame(PING, text("alive?"))]),
    // A frame may declare a longer length, and then the ping is part of it.
    whole: junk === null,
  }));
