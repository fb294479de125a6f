/** What may stand in the log: no key, and of an error nothing but what it is and where it came from. */

import type { FastifyServerOptions } from "fastify";

/** Keys, wherever they were put. */
const KEYS = /didi_[A-Za-z0-9.-]+_[A-Za-z0-9_-]{16,}/g;

/** A text without the keys in it. */
export const withoutKeys = (text: string): string => text.replace(KEYS, "didi_…");

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
