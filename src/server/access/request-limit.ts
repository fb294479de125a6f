/** The limit on requests a minute, by @fastify/rate-limit over the store of the other limits. */

import rateLimit, { type FastifyRateLimitStore } from "@fastify/rate-limit";
import type { FastifyInstance } from "fastify";
import { type LimitStore, MINUTE_MS } from "../../quota/memory.ts";
import { minuteLimitReached } from "./key-usage.ts";

/** Count the requests of limited keys and add RateLimit headers. Call it before the routes are added. */
export async function addRequestLimit(app: FastifyInstance, store: LimitStore): Promise<void> {
  /** The plugin takes a class, which it instantiates itself. */
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
    // RateLimit-Limit, -Remaining and -Reset of the IETF draft.
    enableDraftSpec: true,
    allowList: ({ key }) => key?.limits.requests_per_minute === undefined,
    keyGenerator: ({ key }) => key?.id ?? "",
    max: ({ key }) => key!.limits.requests_per_minute!,
    errorResponseBuilder: (_request, { max, ttl }) => minuteLimitReached("requests_per_minute", max, ttl),
  });
}
