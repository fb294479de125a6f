/** Answers that were computed before: the same request with the same seed has the same answer. */

import { LRUCache } from "lru-cache";
import type { SamplingParams } from "../request.ts";
import type { SampleGroup } from "../sample-group.ts";
import type { Outcome } from "./answer.ts";
import type { SampleRecord } from "./step-emitter.ts";

/** A finished group, as it is kept. */
export interface CachedAnswer {
  params: SamplingParams;
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

/** A params as a string. */
export function cacheKey(params: SamplingParams): string {
  return JSON.stringify(params);
}

/** Bytes that an entry takes, roughly: numbers are doubles, a reveal an object of three of them. */
function sizeOf(key: string, { params, records, outcome }: CachedAnswer): number {
  const reveals = records.reduce((sum, { record }) => sum + record.revealed.length, 0);
  const tokens = (2 + outcome.canvases.length) * params.canvas.length;
  return 1024 + 2 * key.length + 160 * records.length + 64 * reveals + 8 * tokens;
}

/** Bounded in bytes and time; the least recently used goes first. */
export class ResultCache {
  readonly #entries: LRUCache<string, CachedAnswer> | undefined;

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

  /** Whether there is an entry; does not count as a use of it. */
  has(key: string): boolean {
    return this.#entries?.has(key) ?? false;
  }

  get(key: string): CachedAnswer | undefined {
    return this.#entries?.get(key);
  }

  /** Keeps a finished group that left out no steps. */
  keep(key: string, { params, records }: SampleGroup, outcome: Outcome): void {
    this.#entries?.set(key, { params, records, outcome });
  }
}
