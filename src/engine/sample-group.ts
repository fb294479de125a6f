/** One params on its way through the engine: its samples, its steps, and everyone who waits for it. */

import { type Passes, Sample, type StepRecord } from "../diffusion/sampler.ts";
import type { Model } from "../model/model.ts";
import type { Provider } from "../runtime/protocol.ts";
import { type Answer, answer, type CacheState, type Outcome } from "./answers/answer.ts";
import { traceSha256 } from "./answers/receipt.ts";
import type { SampleRecord, StepEmitter } from "./answers/step-emitter.ts";
import type { SamplingParams } from "./request.ts";

/** One request that waits for a group. */
export interface Subscriber {
  readonly id: string;
  /** Clock time, milliseconds. */
  readonly acceptedAt: number;
  readonly cache: CacheState;
  readonly emitter: StepEmitter;
  resolve(result: Answer): void;
  reject(error: Error): void;
}

/** State of one params. The engine drives it; it holds no queue and no clock of its own. */
export class SampleGroup {
  readonly samples: Sample[];
  /** Clock time of the deadline; infinite if there is none. */
  readonly deadlineAt: number;
  /** [samples] of a ranked params, as they come. */
  readonly rewards: (number | undefined)[] = [];
  /** Every step so far, in order. */
  readonly records: SampleRecord[] = [];
  firstPassAt: number | undefined;
  computeMs = 0;
  /** Token passes (cost.ts) that were started for it. */
  tokenPasses = 0;
  /** True once finished, failed or given up. */
  over = false;
  readonly #subscribers = new Set<Subscriber>();

  constructor(
    readonly params: SamplingParams,
    readonly model: Model,
    /** Milliseconds from acceptance. */
    readonly deadlineMs: number | undefined,
    /** Clock time, milliseconds. */
    readonly acceptedAt: number,
  ) {
    this.deadlineAt = acceptedAt + (deadlineMs ?? Number.POSITIVE_INFINITY);
    const { samples, ...shared } = params;
    this.samples = Array.from(
      { length: samples },
      (_, sample) => new Sample({ ...shared, sample }, model.schedule, model.manifest.mask_token_id),
    );
  }

  /** True while somebody waits. */
  get wanted(): boolean {
    return this.#subscribers.size > 0;
  }

  /** Ids of the requests that wait. */
  get handles(): string[] {
    return [...this.#subscribers].map(({ id }) => id);
  }

  /** Adds one who waits; the steps so far are told with the next one, and not before this returns. */
  subscribe(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
  }

  /** Remove one who waits. Returns false if it did not wait. */
  leave(subscriber: Subscriber): boolean {
    return this.#subscribers.delete(subscriber);
  }

  /**
   * Keep a finished step and tell it to those who listen. A request whose step cannot be put together is
   * rejected with that error; throws it if no other request waits.
   */
  announce(sample: Sample, record: StepRecord): void {
    this.records.push({ sample: sample.params.sample, record });
    for (const subscriber of this.#subscribers)
      try {
        subscriber.emitter.tell(this.records);
      } catch (error) {
        this.leave(subscriber);
        subscriber.reject(error as Error);
        if (!this.wanted) throw error;
      }
  }

  /** What it came to on this provider, once every sample is done. */
  outcome(provider: Provider): Outcome {
    const passes = (network: keyof Passes) =>
      this.samples.reduce((sum, sample) => sum + sample.passes[network], 0);
    return {
      canvases: this.samples.map(({ canvas }) => canvas.tokens),
      hurried: this.samples.map(({ hurried }) => hurried),
      rewards: this.rewards.map((reward) => reward!),
      passes: {
        student: passes("student"),
        discriminator: passes("discriminator"),
        gradient: passes("gradient"),
      },
      provider,
      traceSha256: traceSha256(
        this.records,
        this.rewards.map((reward) => reward!),
      ),
    };
  }

  /**
   * Answer everyone who waits, once its steps are told; a request whose answer cannot be put together is rejected with
   * that error. `now` is the clock of `acceptedAt`, `cache` says where the outcome is from if it was not computed.
   */
  finish(outcome: Outcome, now: () => number, cache?: CacheState): void {
    this.over = true;
    for (const { id, emitter, acceptedAt, resolve, reject, ...subscriber } of this.#subscribers) {
      const from = { id, emitter, cache: cache ?? subscriber.cache };
      const timing = () => ({
        queue_ms: Math.max(0, (this.firstPassAt ?? now()) - acceptedAt),
        compute_ms: this.computeMs,
        total_ms: now() - acceptedAt,
      });
      answer(outcome, this.records, from, timing).then(resolve, reject);
    }
    this.#subscribers.clear();
  }

  /** Reject everyone who waits. */
  fail(error: Error): void {
    this.over = true;
    for (const subscriber of this.#subscribers) subscriber.reject(error);
    this.#subscribers.clear();
  }
}
