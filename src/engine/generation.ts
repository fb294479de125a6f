/** One computation on its way through the engine: its samples, its steps, and everyone who waits for it. */

import { type Passes, Sample, type StepRecord } from "../diffusion/sampler.ts";
import type { Model } from "../model/model.ts";
import type { Provider } from "../runtime/protocol.ts";
import { Narrator, type SampleRecord, type StepEvent } from "./narrator.ts";
import { type Receipt, receiptOf } from "./receipt.ts";
import type { PreparedRequest } from "./request.ts";

/** A finished sample. */
export interface SampleResult {
  text: string;
  tokens: number[];
  /** `deadline` if steps were left out to answer in time; otherwise `stop` if an end of text came, else `length`. */
  finish_reason: "length" | "stop" | "deadline";
}

/** What a generation came to, whoever asked for it. */
export interface Outcome {
  samples: SampleResult[];
  usage: {
    prompt_tokens: number;
    completion_tokens: number;
    steps: number;
    student_passes: number;
    discriminator_passes: number;
    gradient_passes: number;
  };
  receipt: Receipt;
}

/** Where an answer comes from: computed for this request, with another one, or before. */
export type CacheState = "miss" | "shared" | "hit";

/** The body of POST /generate's answer. */
export interface GenerationResult extends Outcome {
  id: string;
  model: string;
  seed: number;
  cache: CacheState;
  timing: { queue_ms: number; compute_ms: number; total_ms: number };
}

/** One request that waits for a generation. */
export interface Subscriber {
  readonly id: string;
  /** Clock time, milliseconds. */
  readonly acceptedAt: number;
  readonly cache: CacheState;
  readonly onStep: ((event: StepEvent) => void) | undefined;
  resolve(result: GenerationResult): void;
  reject(error: Error): void;
}

const round = (ms: number) => Math.round(ms * 100) / 100;

/** State of one computation. The engine drives it; it holds no queue and no clock of its own. */
export class Generation {
  readonly samples: Sample[];
  /** Clock time of the deadline; infinite if there is none. */
  readonly deadlineAt: number;
  /** Every step so far, in order. */
  readonly records: SampleRecord[] = [];
  firstPassAt: number | undefined;
  computeMs = 0;
  /** True once finished, failed or given up. */
  over = false;
  readonly #narrator: Narrator;
  /** Those who listen, and whether they have been told the steps before they came. */
  readonly #subscribers = new Map<Subscriber, boolean>();

  constructor(
    readonly request: PreparedRequest,
    readonly model: Model,
    acceptedAt: number,
  ) {
    this.deadlineAt = acceptedAt + (request.deadlineMs ?? Number.POSITIVE_INFINITY);
    this.#narrator = new Narrator(model, request);
    const { promptTokens: prompt, ...rest } = request;
    this.samples = Array.from(
      { length: request.n },
      (_, sample) => new Sample({ prompt, sample, ...rest }, model.schedule, model.manifest.mask_token_id),
    );
  }

  /** True while somebody waits. */
  get wanted(): boolean {
    return this.#subscribers.size > 0;
  }

  /** Adds one who waits; the steps so far are told before the next one, and not before this returns. */
  subscribe(subscriber: Subscriber): void {
    this.#subscribers.set(subscriber, this.records.length === 0);
  }

  /** Removes one who waits and rejects its request. Returns false if it did not wait. */
  leave(subscriber: Subscriber, error: Error): boolean {
    if (!this.#subscribers.delete(subscriber)) return false;
    subscriber.reject(error);
    return true;
  }

  /** Keeps a finished step and tells it to those who listen. */
  announce(sample: Sample, record: StepRecord): void {
    for (const subscriber of this.#subscribers.keys()) this.#catchUp(subscriber);
    const entry = { sample: sample.params.sample, record };
    this.records.push(entry);
    let event: StepEvent | undefined;
    for (const { onStep } of this.#subscribers.keys()) {
      event ??= this.#narrator.tell(entry);
      onStep?.(event);
    }
  }

  #catchUp(subscriber: Subscriber): void {
    if (this.#subscribers.get(subscriber)) return;
    this.#subscribers.set(subscriber, true);
    replay(this.model, this.request, this.records, subscriber.onStep);
  }

  /** What it came to on this provider, once every sample is done. */
  outcome(provider: Provider): Outcome {
    const { tokenizer, manifest } = this.model;
    const passes = (network: keyof Passes) =>
      this.samples.reduce((sum, sample) => sum + sample.passes[network], 0);
    const samples = this.samples.map((sample): SampleResult => {
      const tokens = sample.canvas.tokens.subarray(sample.params.prompt.length);
      const stopped = tokens.includes(manifest.end_of_text_token_id);
      return {
        text: tokenizer.decode(tokens),
        tokens: [...tokens],
        finish_reason: sample.hurried ? "deadline" : stopped ? "stop" : "length",
      };
    });
    return {
      samples,
      usage: {
        prompt_tokens: this.request.promptTokens.length,
        completion_tokens: samples.reduce((sum, sample) => sum + sample.tokens.length, 0),
        steps: this.request.steps,
        student_passes: passes("student"),
        discriminator_passes: passes("discriminator"),
        gradient_passes: passes("gradient"),
      },
      receipt: receiptOf(this.model, provider, this.request, this.records),
    };
  }

  /** Answers everyone who waits; `now` is the clock of `acceptedAt`. Returns the answers. */
  finish(outcome: Outcome, now: number): GenerationResult[] {
    this.over = true;
    return [...this.#subscribers.keys()].map((subscriber) => {
      this.#catchUp(subscriber);
      const queued = Math.max(0, (this.firstPassAt ?? now) - subscriber.acceptedAt);
      const result = answer(this.model, this.request, outcome, subscriber, {
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
    for (const subscriber of this.#subscribers.keys()) subscriber.reject(error);
    this.#subscribers.clear();
    return size;
  }
}

/** Tells the steps of a generation from the start. */
export function replay(
  model: Model,
  request: PreparedRequest,
  records: readonly SampleRecord[],
  onStep: ((event: StepEvent) => void) | undefined,
): void {
  if (!onStep) return;
  const narrator = new Narrator(model, request);
  for (const record of records) onStep(narrator.tell(record));
}

/** The answer to one who waited; times in milliseconds. */
export function answer(
  model: Model,
  request: PreparedRequest,
  outcome: Outcome,
  { id, cache }: Pick<Subscriber, "id" | "cache">,
  { queue_ms, compute_ms, total_ms }: GenerationResult["timing"],
): GenerationResult {
  return {
    id,
    model: model.manifest.name,
    seed: request.seed,
    ...outcome,
    cache,
    timing: { queue_ms: round(queue_ms), compute_ms: round(compute_ms), total_ms: round(total_ms) },
  };
}
