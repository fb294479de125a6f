/** The cache of answers in this process: equal sampling parameters have equal answers. */

import { LRUCache } from "lru-cache";
import type { Provider } from "../../runtime/protocol.ts";
import type { SamplingParams } from "../request.ts";
import type { Outcome } from "./answer.ts";
import { traceSha256 } from "./receipt.ts";
import type { SampleRecord } from "./step-emitter.ts";

/** The cached result of a finished group. */
export interface CachedAnswer {
  params: SamplingParams;
  records: readonly SampleRecord[];
  outcome: Outcome;
}

/** Return the answer to a request whose choices were everything that it asked for. */
export function nothingGenerated(params: SamplingParams, provider: Provider): CachedAnswer {
  const canvases = Array.from({ length: params.samples }, () => Int32Array.from(params.canvas));
  const passes = { student: 0, discriminator: 0, gradient: 0 };
  const hurried = canvases.map(() => false);
  return {
    params,
    records: [],
    outcome: { canvases, hurried, rewards: [], passes, provider, traceSha256: traceSha256([]) },
  };
}

/** Bounds of the cache. */
export interface CacheLimits {
  /** Estimated bytes; 0 disables the cache. */
  maxBytes: number;
  /** Milliseconds until an answer expires; 0 disables the cache. */
  ttlMs: number;
}

/** Return the cache key of sampling parameters. */
export function cacheKey(params: SamplingParams): string {
  return JSON.stringify(params);
}

/** Estimate the bytes of an entry: numbers are doubles, a reveal is an object of three of them. */
function sizeOf(key: string, { params, records, outcome }: CachedAnswer): number {
  const reveals = records.reduce(
    (sum, { record: { revealed, remasked = [] } }) => sum + revealed.length + remasked.length / 8,
    0,
  );
  const tokens = (2 + outcome.canvases.length) * params.canvas.length;
  return 1024 + 2 * key.length + 160 * records.length + 64 * reveals + 8 * tokens;
}

/** Bounded in bytes and time; evicts the least recently used entry first. */
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

  /** Estimated bytes of all entries. */
  get bytes(): number {
    return this.#entries?.calculatedSize ?? 0;
  }

  get(key: string): CachedAnswer | undefined {
    return this.#entries?.get(key);
  }

  /** Keep the result of a finished group that skipped no steps. */
  keep(key: string, answer: CachedAnswer): void {
    this.#entries?.set(key, answer);
  }
}
