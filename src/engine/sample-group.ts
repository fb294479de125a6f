/**
 * The samples that one set of parameters asks for, their steps so far, and the requests that wait for them.
 */

import { PROBE_TEMPERATURE } from "../diffusion/probe.ts";
import { Sample } from "../diffusion/sampler.ts";
import type { Passes, StepRecord } from "../diffusion/step.ts";
import type { Model } from "../model/model.ts";
import type { Provider } from "../runtime/protocol.ts";
import { answer, type CacheState, type Outcome } from "./answers/answer.ts";
import { traceSha256 } from "./answers/receipt.ts";
import type { SampleRecord } from "./answers/step-emitter.ts";
import { TextEndWatch } from "./answers/text-end.ts";
import type { SamplingParams } from "./request.ts";
import type { Subscriber } from "./subscriber.ts";

/** State of a sample group. The engine drives it; it has no queue and no clock. */
export class SampleGroup {
  readonly samples: Sample[];
  /** `performance.now()` of the deadline; infinite without one. */
  readonly deadlineAt: number;
  /** [samples] final rewards of a ranked group, filled in as samples finish. */
  readonly rewards: (number | undefined)[] = [];
  /** Every step so far, in order. */
  readonly records: SampleRecord[] = [];
  /** `performance.now()` of its first batch. */
  firstPassAt: number | undefined;
  computeMs = 0;
  /** Token passes (cost.ts) started for it. */
  tokenPasses = 0;
  /** True once finished, failed or cancelled. */
  ended = false;
  readonly #subscribers = new Set<Subscriber>();
  /** [samples], if sampling ends with the text. */
  readonly #textEnds: TextEndWatch[];

  /**
   * @param deadlineMs milliseconds from `acceptedAt`
   * @param acceptedAt `performance.now()`
   * @param key cache key; undefined if the answer is not cached
   */
  constructor(
    readonly params: SamplingParams,
    readonly model: Model,
    readonly deadlineMs: number | undefined,
    readonly acceptedAt: number,
    readonly key?: string,
  ) {
    this.deadlineAt = acceptedAt + (deadlineMs ?? Number.POSITIVE_INFINITY);
    const { samples, scored, ...shared } = params;
    const { mask_token_id: mask } = model.manifest;
    const ofSample = (sample: number) =>
      scored && {
        canvas: scored[sample]!.canvas,
        given: scored[sample]!,
        temperature: PROBE_TEMPERATURE,
      };
    this.samples = Array.from(
      { length: samples },
      (_, sample) => new Sample({ ...shared, ...ofSample(sample), sample }, model.schedule, mask),
    );
    const { earlyStop } = params;
    this.#textEnds = earlyStop
      ? this.samples.map(() => new TextEndWatch(model.tokenizer, params.canvas, earlyStop))
      : [];
  }

  /** End the sample if its text is known up to its end and nothing after it is to be generated. */
  endIfComplete(sample: Sample): void {
    if (this.#textEnds[sample.params.sample]?.isComplete(sample.settledTokens)) sample.end();
  }

  /** True while a request waits for it. */
  get wanted(): boolean {
    return this.#subscribers.size > 0;
  }

  /** Ids of the requests that wait for it. */
  get requestIds(): string[] {
    return [...this.#subscribers].map(({ id }) => id);
  }

  /** Add a request. It gets the steps so far with the next one, and none before this returns. */
  subscribe(subscriber: Subscriber): void {
    this.#subscribers.add(subscriber);
  }

  /** Remove a request. Return false if it was not waiting. */
  leave(subscriber: Subscriber): boolean {
    return this.#subscribers.delete(subscriber);
  }

  /**
   * Keep a finished step and emit it to every request. A request whose step cannot be rendered is rejected
   * with that error, which is thrown if no other request waits.
   */
  announce(sample: Sample, record: StepRecord): void {
    this.records.push({ sample: sample.params.sample, record });
    for (const subscriber of this.#subscribers)
      try {
        subscriber.emitter.emit(this.records);
      } catch (error) {
        this.leave(subscriber);
        subscriber.reject(error as Error);
        if (!this.wanted) throw error;
      }
  }

  /** Return the result of all samples, once every one is done. */
  outcome(provider: Provider): Outcome {
    const count = (network: keyof Passes) =>
      this.samples.reduce((sum, { passes }) => sum + passes[network], 0);
    const rewards = this.rewards.map((reward) => reward!);
    return {
      canvases: this.samples.map(({ canvas }) => canvas.tokens),
      hurried: this.samples.map(({ hurried }) => hurried),
      rewards,
      passes: {
        student: count("student"),
        discriminator: count("discriminator"),
        gradient: count("gradient"),
      },
      provider,
      traceSha256: traceSha256(this.records, rewards),
    };
  }

  /**
   * Answer every request once its steps are emitted. A request whose answer cannot be built is rejected with
   * that error.
   *
   * @param now the clock of `acceptedAt`
   * @param cache origin of the outcome, if it was not computed here
   */
  finish(outcome: Outcome, now: () => number, cache?: CacheState): void {
    this.ended = true;
    for (const subscriber of this.#subscribers) {
      const { id, emitter, acceptedAt, resolve, reject } = subscriber;
      const timing = () => ({
        queue_ms: Math.max(0, (this.firstPassAt ?? now()) - acceptedAt),
        compute_ms: this.computeMs,
        total_ms: now() - acceptedAt,
      });
      const origin = { id, emitter, cache: cache ?? subscriber.cache };
      answer(outcome, this.records, origin, timing).then(resolve, reject);
    }
    this.#subscribers.clear();
  }

  /** Reject every request. */
  fail(error: Error): void {
    this.ended = true;
    for (const { reject } of this.#subscribers) reject(error);
    this.#subscribers.clear();
  }
}
