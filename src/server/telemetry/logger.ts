/** Redaction of the log: no API keys, and of an error only type, message, stack and code. */

import type { FastifyServerOptions } from "fastify";

/** A key anywhere in a text. */
const KEYS = /didi_[A-Za-z0-9.-]+_[A-Za-z0-9_-]{16,}/g;

/** Return a text with its keys redacted. */
export const withoutKeys = (text: string): string => text.replace(KEYS, "didi_…");

/** Return whether a text holds a key. */
export const holdsKey = (text: string): boolean => withoutKeys(text) !== text;

/** Levels of percent-encoding that are decoded: a proxy may encode a path again. */
const MOST_DECODED = 5;

/** Return a path with its keys redacted. A path with a percent-encoded key is returned decoded. */
export function pathWithoutKeys(path: string): string {
  let decoded = path;
  for (let i = 0; i < MOST_DECODED && decoded.includes("%"); i++) {
    // Decode byte by byte: a key is ASCII, and invalid encodings stay.
    const next = decoded.replace(/%[2-7][0-9a-f]/gi, (code) =>
      String.fromCharCode(parseInt(code.slice(1), 16)),
    );
    if (holdsKey(next)) return withoutKeys(next);
    if (next === decoded) break;
    decoded = next;
  }
  return withoutKeys(path);
}

/**
 * Return the fields to log: further fields of an error may hold anything, such as bytes that a client sent.
 */
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

/** Return Fastify's option with the redaction. */
export function safeLogger(logger: Logger): Logger {
  if (typeof logger !== "object") return logger;
  return {
    ...logger,
    serializers: { ...logger.serializers, err: errorFields },
    redact: ["authorization", "headers.authorization", 'headers["x-api-key"]'],
  } as Logger;
}
