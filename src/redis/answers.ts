/** Cached answers in Redis, shared by all servers of a model. */

import type { AnswerStore } from "../engine/answers/shared-cache.ts";
import type { RedisLink } from "./link.ts";

/**
 * A store of answers in Redis, bounded by Redis's own `maxmemory`. A store that is unavailable is empty: no
 * method rejects.
 *
 * @example
 * const shared = new SharedCache(new RedisAnswers(await RedisLink.open(url)), model, 3_600_000);
 */
export class RedisAnswers implements AnswerStore {
  constructor(readonly link: RedisLink) {}

  async get(key: string): Promise<string | undefined> {
    return (await this.link.run((redis) => redis.get(`didi:answer:${key}`))) ?? undefined;
  }

  async set(key: string, value: string, ttlMs: number): Promise<void> {
    await this.link.run((redis) => redis.set(`didi:answer:${key}`, value, "PX", ttlMs));
  }
}
