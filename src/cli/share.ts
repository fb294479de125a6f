/** Quotas and cached answers shared with other servers of the same model through --redis. */

import type { FastifyBaseLogger } from "fastify";
import { SharedCache } from "../engine/answers/shared-cache.ts";
import type { Model } from "../model/model.ts";
import type { LimitStore } from "../quota/memory.ts";
import { RedisLimitStore } from "../quota/redis.ts";
import { RedisAnswers } from "../redis/answers.ts";
import { RedisLink } from "../redis/link.ts";
import type { ServeConfig } from "./options.ts";

/** A connection to Redis, which may be down at the moment. */
export interface Share {
  /** Quotas, counted over all servers. */
  store: LimitStore;
  /** Return the second tier of the cache; undefined if the cache is disabled. */
  cacheOf(model: Model): SharedCache | undefined;
  /** Whether Redis answers. */
  up(): boolean;
  /** Log when Redis goes down and when it is back. */
  watch(log: FastifyBaseLogger): void;
  close(): void;
}

/**
 * Connect to --redis; undefined without. Throws StartupError if ioredis is missing, but not if Redis is down.
 */
export async function openShare({ redis, cacheMb, cacheTtl }: ServeConfig): Promise<Share | undefined> {
  if (redis === undefined) return undefined;
  const link = await RedisLink.open(redis);
  const store = new RedisLimitStore(link);
  return {
    store,
    cacheOf: (model) =>
      cacheMb === 0 ? undefined : new SharedCache(new RedisAnswers(link), model, cacheTtl * 1000),
    up: () => link.down === undefined,
    watch(log) {
      const warn = (reason: string) =>
        log.warn(
          `Redis at ${link.address} is down (${reason}): quotas and the cache stay in this process meanwhile`,
        );
      if (link.down !== undefined) warn(link.down);
      link.on("down", warn);
      link.on("refused", (command, reason) =>
        log.warn(
          `Redis at ${link.address} refuses ${command} (${reason}): what needs it stays in this process. ` +
            "Allow the user of --redis to run GET, SET and EVAL on didi:*",
        ),
      );
      link.on("up", () =>
        log.info(`Redis at ${link.address} is back: quotas and the cache are shared again`),
      );
    },
    close() {
      store.close();
      link.close();
    },
  };
}
