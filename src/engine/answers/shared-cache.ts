/** The second tier of the cache: answers that servers of the same model share. */

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

/** A store of texts. Its methods never reject: a store that cannot be reached is empty. */
export interface AnswerStore {
  get(key: string): Promise<string | undefined>;
  /** Keep `value` for `ttlMs` milliseconds. */
  set(key: string, value: string, ttlMs: number): Promise<void>;
}

/** A stored answer. It has no canvases, since the records hold every token. */
interface Kept extends Omit<Outcome, "canvases" | "hurried"> {
  records: readonly SampleRecord[];
}

/** Answers of one model, in a store. */
export class SharedCache {
  constructor(
    readonly store: AnswerStore,
    readonly model: Model,
    readonly ttlMs: number,
    /** Describes what else the bits of an answer depend on (runtime/processor.ts). */
    readonly processor: (provider: Provider) => string = processorOf,
  ) {}

  /** Return the answer for these parameters; undefined if there is none or it is damaged. */
  async find(params: SamplingParams, provider: Provider): Promise<CachedAnswer | undefined> {
    const text = await this.store.get(this.#key(params, provider));
    if (text === undefined) return undefined;
    try {
      return decode(text, params, this.model);
    } catch {
      return undefined;
    }
  }

  /** Keep the result of a finished group that skipped no steps. */
  async keep({ params, records, outcome }: CachedAnswer, provider: Provider): Promise<void> {
    const { canvases: _, hurried: __, ...rest } = outcome;
    const kept: Kept = { records, ...rest };
    await this.store.set(this.#key(params, provider), JSON.stringify(kept), this.ttlMs);
  }

  #key(params: SamplingParams, provider: Provider): string {
    const { sha256, precision } = this.model;
    // Exactly what determines the tokens, so that servers of different versions can share answers.
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

/** Parse a stored answer. Throws if its hash does not match its steps, or a canvas is not finished. */
function decode(text: string, params: SamplingParams, model: Model): CachedAnswer {
  const { records, ...rest } = JSON.parse(text) as Kept;
  if (traceSha256(records, rest.rewards) !== rest.traceSha256) throw new Error("the trace is damaged");
  const canvases = Array.from(
    { length: params.samples },
    () => new Canvas(params.canvas, model.manifest.mask_token_id),
  );
  for (const { sample, record } of records) {
    canvases[sample]!.reveal(record.revealed);
    canvases[sample]!.remask(record.remasked ?? []);
  }
  if (canvases.some(({ masked }) => masked.length > 0)) throw new Error("the trace is incomplete");
  const outcome: Outcome = {
    ...rest,
    canvases: canvases.map(({ tokens }) => tokens),
    hurried: canvases.map(() => false),
  };
  return { params, records, outcome };
}
