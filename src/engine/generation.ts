/** One computation on its way through the engine: its samples, its steps, and everyone who waits for it. */

import { type Passes, Sample, type StepRecord } from "../diffusion/sampler.ts";
import type { Model } from "../model/model.ts";
import type { Provider } from "../runtime/protocol.ts";
import { type Answer, answer, type CacheState, type Outcome } from "./answer.ts";
import type { Narrator, SampleRecord } from "./narrator.ts";
import { receiptOf } from "./receipt.ts";
import type { Computation } from "./request.ts";

/** One request that waits for a generation. */
export interface Subscriber {
  readonly id: string;
  /** Clock time, milliseconds. */
  readonly acceptedAt: number;
  readonly cache: CacheState;
  readonly narrator: Narrator;
  resolve(result: Answer): void;
  reject(error: Error): void;
}

/** State of one computation. The engine drives it; it holds no queue and no clock of its own. */
export class Generation {
  readonly samples: Sample[];
  /** Clock time of the deadline; infinite if there is none. */
  readonly deadlineAt: number;
  /** [samples] of a ranked computation, as they come. */
  readonly rewards: (number | undefined)[] = [];
  /** Every step so far, in order. */
  readonly records: SampleRecord[] = [];
  firstPassAt: number | undefined;
  computeMs = 0;
  /** True once finished, failed or given up. */
  over = false;
  readonly #subscribers = new Set<Subscriber>();

  constructor(
    readonly computation: Computation,
    readonly model: Model,
    /** Milliseconds from acceptance. */
    readonly deadlineMs: number | undefined,
    /** Clock time, milliseconds. */
    readonly acceptedAt: number,
  ) {
    this.deadlineAt = acceptedAt + (deadlineMs ?? Number.POSITIVE_INFINITY);
    const { samples, ...params } = computation;
    this.samples = Array.from(
      { length: samples },
      (_, sample) => new Sample({ ...params, sample }, model.schedule, model.manifest.mask_token_id),
    );
  }

  /** True while somebody waits. */
  get wanted(): boolean {
    return this.#subscribers.size > 0;
  }

  /** Ids of the requests that wait. */
  get tickets(): string[] {
    return [...this.#subscribers].map(({ id }) => id);
  }

  /** Adds one who waits; the steps so far are told with the next one, and not before this returns. */
  subscribe(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
  }

  /** Removes one who waits and rejects its request. Returns false if it did not wait. */
  leave(subscriber: Subscriber, error: Error): boolean {
    if (!this.#subscribers.delete(subscriber)) return false;
    subscriber.reject(error);
    return true;
  }

  /** Keeps a finished step and tells it to those who listen. */
  announce(sample: Sample, record: StepRecord): void {
    this.records.push({ sample: sample.params.sample, record });
    for (const { narrator } of this.#subscribers) narrator.tell(this.records);
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
      receipt: receiptOf(this.model, provider, this),
    };
  }

  /** Answers everyone who waits; `now` is the clock of `acceptedAt`, `cache` where it came from if it was not computed. Returns the answers. */
  finish(outcome: Outcome, now: number, cache?: CacheState): Answer[] {
    this.over = true;
    return [...this.#subscribers].map((subscriber) => {
      const queued = Math.max(0, (this.firstPassAt ?? now) - subscriber.acceptedAt);
      const { id, narrator } = subscriber;
      const from = { id, narrator, cache: cache ?? subscriber.cache };
      const result = answer(outcome, this.records, from, {
        queue_ms: queued,
        compute_ms: this.computeMs,
        total_ms: now - subscriber.acceptedAt,
      });
      subscriber.resolve(result);
      return result;
    });
  }

  /** Rejects everyone who waits; returns how many. */
  fail(error: Error): number {
    this.over = true;
    const { size } = this.#subscribers;
    for (const subscriber of this.#subscribers) subscriber.reject(error);
    this.#subscribers.clear();
    return size;
  }
}
