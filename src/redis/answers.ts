/** Answers in Redis, for all servers of a model. */

import type { AnswerStore } from "../engine/answers/shared-cache.ts";
import type { RedisLink } from "./link.ts";

/** Keeps answers for as long as the in-process cache would. Redis's own `maxmemory` bounds them. */
export class RedisAnswers implements AnswerStore {
  constructor(readonly link: RedisLink) {}

  async get(key: string): Promise<string | undefined> {
    return (await this.link.run((redis) => redis.get(`didi:answer:${key}`))) ?? undefined;
  }

  async set(key: string, value: string, ttlMs: number): Promise<void> {
    await this.link.run((redis) => redis.set(`didi:answer:${key}`, value, "PX", ttlMs));
  }
}
