/** What a server shares with others of the same model, if --redis is given: quotas, and answers that are kept. */

import type { FastifyBaseLogger } from "fastify";
import { SharedCache } from "../engine/answers/shared-cache.ts";
import type { Model } from "../model/model.ts";
import type { LimitStore } from "../quota/memory.ts";
import { RedisLimitStore } from "../quota/redis.ts";
import { RedisAnswers } from "../redis/answers.ts";
import { RedisLink } from "../redis/link.ts";
import type { ServeConfig } from "./options.ts";

/** A Redis that is in use, or will be as soon as it is there. */
export interface Share {
  /** What keys use, counted for all servers. */
  store: LimitStore;
  /** The second tier of the cache; undefined if nothing is to be kept. */
  cacheOf(model: Model): SharedCache | undefined;
  /** Whether Redis answers. */
  up(): boolean;
  /** Says in the log when it goes, and when it comes back. */
  watch(log: FastifyBaseLogger): void;
  close(): void;
}

/** Connects to --redis; undefined without. Throws StartupError if ioredis is not installed, not if Redis is away. */
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
          `Redis at ${link.address} is away (${reason}): quotas and the cache stay in this process until it is back`,
        );
      if (link.down !== undefined) warn(link.down);
      link.on("down", warn);
      link.on("refused", (command, reason) =>
        log.warn(
          `Redis at ${link.address} refuses ${command} (${reason}): what needs it stays in this process. Allow the user of --redis to run GET, SET and EVAL on didi:*`,
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
