/** What may stand in the log: no key, and of an error nothing but what it is and where it came from. */

import type { FastifyServerOptions } from "fastify";

/** Keys, wherever they were put. */
const KEYS = /didi_[A-Za-z0-9.-]+_[A-Za-z0-9_-]{16,}/g;

/** A text without the keys in it. */
export const withoutKeys = (text: string): string => text.replace(KEYS, "didi_…");

/** Whether a key stands in a text. */
export const holdsKey = (text: string): boolean => withoutKeys(text) !== text;

/** Times that an address may be percent-encoded: a proxy may encode what a client has encoded already. */
const MOST_DECODED = 5;

/** A path without the keys in it. One that holds a key in percent-encoding is given decoded. */
export function pathWithoutKeys(path: string): string {
  let decoded = path;
  for (let i = 0; i < MOST_DECODED && decoded.includes("%"); i++) {
    // What is no percent-encoding stays; the rest is decoded byte by byte, since a key is plain ASCII.
    const next = decoded.replace(/%[2-7][0-9a-f]/gi, (code) =>
      String.fromCharCode(parseInt(code.slice(1), 16)),
    );
    if (holdsKey(next)) return withoutKeys(next);
    if (next === decoded) break;
    decoded = next;
  }
  return withoutKeys(path);
}

/** An error's own fields may hold anything, such as the bytes that a client sent. */
function errorFields(error: Error & { code?: string }) {
  const { name, message, stack = "", code } = error;
  return {
    type: name,
    message: withoutKeys(String(message)),
    stack: withoutKeys(stack),
    ...(code && { code }),
  };
}

type Logger = NonNullable<FastifyServerOptions["logger"]>;

/** Fastify's option, with that added. */
export function safeLogger(logger: Logger): Logger {
  if (typeof logger !== "object") return logger;
  return {
    ...logger,
    serializers: { ...logger.serializers, err: errorFields },
    redact: ["authorization", "headers.authorization", 'headers["x-api-key"]'],
  } as Logger;
}
