/** The second tier of the cache: answers that another server of the same model computed. */

import { createHash } from "node:crypto";
import { Canvas } from "../../diffusion/canvas.ts";
import { SAMPLER_VERSION } from "../../diffusion/sampler.ts";
import type { Model } from "../../model/model.ts";
import { processorOf } from "../../runtime/processor.ts";
import type { Provider } from "../../runtime/protocol.ts";
import type { SamplingParams } from "../request.ts";
import type { Outcome } from "./answer.ts";
import { type CachedAnswer, cacheKey } from "./cache.ts";
import { traceSha256 } from "./receipt.ts";
import type { SampleRecord } from "./step-emitter.ts";

/** Where they are kept. Neither method rejects: what cannot be reached holds nothing. */
export interface AnswerStore {
  get(key: string): Promise<string | undefined>;
  /** Keeps a text for so many milliseconds. */
  set(key: string, value: string, ttlMs: number): Promise<void>;
}

/** What is kept: canvases are left out, since the records hold every token. */
interface Kept extends Omit<Outcome, "canvases" | "hurried"> {
  records: readonly SampleRecord[];
}

/** Finds and keeps answers of one model on one kind of processor. */
export class SharedCache {
  constructor(
    readonly store: AnswerStore,
    readonly model: Model,
    readonly ttlMs: number,
    /** What else the bits depend on, where the graphs run. */
    readonly processor: (provider: Provider) => string = processorOf,
  ) {}

  /** The answer to a params; undefined if there is none, or one that is damaged. */
  async find(params: SamplingParams, provider: Provider): Promise<CachedAnswer | undefined> {
    const text = await this.store.get(this.#key(params, provider));
    if (text === undefined) return undefined;
    try {
      return decode(text, params, this.model);
    } catch {
      return undefined;
    }
  }

  /** Keeps a finished group that left out no steps. */
  async keep({ params, records, outcome }: CachedAnswer, provider: Provider): Promise<void> {
    const { canvases: _, hurried: __, ...rest } = outcome;
    const kept: Kept = { records, ...rest };
    await this.store.set(this.#key(params, provider), JSON.stringify(kept), this.ttlMs);
  }

  #key(params: SamplingParams, provider: Provider): string {
    const { sha256, precision } = this.model;
    // All that determines the tokens, and nothing else: servers of other versions share what they both compute.
    const parts = [
      `sampler ${SAMPLER_VERSION}`,
      `model ${sha256[provider]}`,
      `${precision[provider]} on ${provider}`,
      this.processor(provider),
      cacheKey(params),
    ];
    return createHash("sha256").update(parts.join("\n")).digest("hex");
  }
}

/** Reads what was kept. Throws if it does not hash to what it says, or leaves a canvas unfinished. */
function decode(text: string, params: SamplingParams, model: Model): CachedAnswer {
  const { records, ...rest } = JSON.parse(text) as Kept;
  if (traceSha256(records, rest.rewards) !== rest.traceSha256) throw new Error("the trace is damaged");
  const canvases = Array.from(
    { length: params.samples },
    () => new Canvas(params.canvas, model.manifest.mask_token_id),
  );
  for (const { sample, record } of records) canvases[sample]!.reveal(record.revealed);
  if (canvases.some(({ masked }) => masked.length > 0)) throw new Error("the trace is not whole");
  const outcome: Outcome = {
    ...rest,
    canvases: canvases.map(({ tokens }) => tokens),
    hurried: canvases.map(() => false),
  };
  return { params, records, outcome };
}
