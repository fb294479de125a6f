/** Answers that were computed before: the same request with the same seed has the same answer. */

import { LRUCache } from "lru-cache";
import type { Generation, Outcome } from "./generation.ts";
import type { SampleRecord } from "./narrator.ts";
import type { PreparedRequest } from "./request.ts";

/** A finished generation, as it is kept. */
export interface CachedGeneration {
  request: PreparedRequest;
  records: readonly SampleRecord[];
  outcome: Outcome;
}

/** Bounds of the cache. */
export interface CacheLimits {
  /** Bytes, estimated; 0 keeps nothing. */
  maxBytes: number;
  /** Milliseconds that an answer is kept. */
  ttlMs: number;
}

/** What an answer depends on, as a string; the deadline is not part of it, for an answer that met one is not kept. */
export function cacheKey({ deadlineMs: _, ...request }: PreparedRequest): string {
  return JSON.stringify(request);
}

/** Bytes that an entry takes, roughly: numbers are doubles, a reveal an object of three of them. */
function sizeOf(key: string, { request, records, outcome }: CachedGeneration): number {
  const reveals = records.reduce((sum, { record }) => sum + record.revealed.length, 0);
  const tokens = request.promptTokens.length + outcome.usage.completion_tokens;
  const text = outcome.samples.reduce((sum, sample) => sum + 2 * sample.text.length, 0);
  return 512 + 2 * key.length + 160 * records.length + 64 * reveals + 8 * tokens + text;
}

/** Bounded in bytes and time; the least recently used goes first. */
export class ResultCache {
  readonly #entries: LRUCache<string, CachedGeneration> | undefined;

  constructor({ maxBytes, ttlMs }: CacheLimits) {
    if (maxBytes > 0 && ttlMs > 0)
      this.#entries = new LRUCache({
        maxSize: maxBytes,
        ttl: ttlMs,
        sizeCalculation: (value, key) => sizeOf(key, value),
      });
  }

  /** Bytes kept, estimated. */
  get bytes(): number {
    return this.#entries?.calculatedSize ?? 0;
  }

  get(key: string): CachedGeneration | undefined {
    return this.#entries?.get(key);
  }

  /** Keeps a finished generation, unless steps were left out of it. */
  keep(key: string, { request, records, samples }: Generation, outcome: Outcome): void {
    if (!samples.some(({ hurried }) => hurried)) this.#entries?.set(key, { request, records, outcome });
  }
}
