/** Requests by the minute, counted for HTTP by @fastify/rate-limit in the store that the other limits use. */

import rateLimit, { type FastifyRateLimitStore } from "@fastify/rate-limit";
import type { FastifyInstance } from "fastify";
import { type LimitStore, MINUTE_MS } from "../../quota/memory.ts";
import { minuteLimitReached } from "./admission.ts";

/** Counts the requests of keys that are limited, and says so in RateLimit headers. Goes before the routes. */
export async function addRequestLimit(app: FastifyInstance, store: LimitStore): Promise<void> {
  /** The plugin makes its store itself. */
  class Adapter implements FastifyRateLimitStore {
    incr(key: string, done: (error: Error | null, result?: { current: number; ttl: number }) => void) {
      store.take(key, "requests_per_minute", 1, MINUTE_MS).then(
        ({ used, resetMs }) => done(null, { current: used, ttl: resetMs }),
        (error: Error) => done(error),
      );
    }

    child(): FastifyRateLimitStore {
      return this;
    }
  }
  await app.register(rateLimit, {
    store: Adapter,
    timeWindow: MINUTE_MS,
    // RateLimit-Limit, -Remaining and -Reset, as the draft of the IETF has them.
    enableDraftSpec: true,
    allowList: ({ key }) => key?.limits.requests_per_minute === undefined,
    keyGenerator: ({ key }) => key?.id ?? "",
    max: ({ key }) => key!.limits.requests_per_minute!,
    errorResponseBuilder: (_request, { max, ttl }) => minuteLimitReached("requests_per_minute", max, ttl),
  });
}
