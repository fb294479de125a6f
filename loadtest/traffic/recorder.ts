/** Records the requests of a measurement: counts, and histograms of times. */

import { build, type Histogram } from "hdr-histogram-js";
import type { Shape, Times } from "../report/types.ts";

/** Times of one kind in a histogram of microseconds with three significant digits. */
export class Durations {
  readonly #histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 2 ** 20,
    numberOfSignificantValueDigits: 3,
    autoResize: true,
  });

  /** Record a time in milliseconds; below 0 counts as 0. */
  record(milliseconds: number): void {
    this.#histogram.recordValue(Math.max(0, Math.round(milliseconds * 1000)));
  }

  /** Add the record of another. */
  add(other: Durations): void {
    this.#histogram.add(other.#histogram);
  }

  /** Return the quantiles in milliseconds; undefined if nothing was recorded. */
  quantiles(): Times["latency"] {
    const histogram = this.#histogram;
    if (histogram.totalCount === 0) return undefined;
    // A bucket's upper edge may lie above the largest value in it.
    const at = (percentile: number) =>
      Math.min(histogram.getValueAtPercentile(percentile), histogram.maxValue) / 1000;
    return {
      count: histogram.totalCount,
      mean: histogram.mean / 1000,
      p50: at(50),
      p90: at(90),
      p99: at(99),
      max: histogram.maxValue / 1000,
    };
  }
}

const KINDS = ["latency", "first_step", "step_gap", "queue", "send_lag"] as const;

/** Times of every kind. */
export class TimesRecorder {
  readonly #kinds = Object.fromEntries(KINDS.map((kind) => [kind, new Durations()])) as Record<
    (typeof KINDS)[number],
    Durations
  >;

  record(kind: (typeof KINDS)[number], milliseconds: number): void {
    this.#kinds[kind].record(milliseconds);
  }

  add(other: TimesRecorder): void {
    for (const kind of KINDS) this.#kinds[kind].add(other.#kinds[kind]);
  }

  /** Return the times of the kinds that were recorded. */
  times(): Times {
    return Object.fromEntries(
      KINDS.flatMap((kind) => {
        const quantiles = this.#kinds[kind].quantiles();
        return quantiles ? [[kind, quantiles]] : [];
      }),
    );
  }
}

/** The figures of a correct answer. */
export interface Answer {
  /** New tokens. */
  tokens: number;
  passes?: { student: number; discriminator: number; gradient: number };
  queueMs?: number;
  /** From sending to the first step, of a stream. */
  firstStepMs?: number;
  /** Between steps, of a stream. */
  gapsMs?: readonly number[];
  /** Steps that came merged into the event of a later one. */
  mergedSteps?: number;
}

/** The requests of one or more measurements. */
export class Recorder {
  readonly times = new TimesRecorder();
  /** By the shape's name. */
  readonly shapes = new Map<string, TimesRecorder>();
  readonly errors: Record<string, number> = {};
  readonly passes = { student: 0, discriminator: 0, gradient: 0 };
  requests = 0;
  tokens = 0;
  mergedSteps = 0;

  /**
   * Record a correct answer, `latencyMs` after the request was sent or, in an open loop, should have been.
   */
  success(shape: Shape, latencyMs: number, answer: Answer): void {
    this.requests++;
    this.tokens += answer.tokens;
    this.mergedSteps += answer.mergedSteps ?? 0;
    for (const kind of ["student", "discriminator", "gradient"] as const)
      this.passes[kind] += answer.passes?.[kind] ?? 0;
    for (const times of [this.times, this.#shape(shape.name)]) {
      times.record("latency", latencyMs);
      if (answer.queueMs !== undefined) times.record("queue", answer.queueMs);
      if (answer.firstStepMs !== undefined) times.record("first_step", answer.firstStepMs);
      for (const gap of answer.gapsMs ?? []) times.record("step_gap", gap);
    }
  }

  /** Record a missing or wrong answer. */
  failure(kind: string): void {
    this.errors[kind] = (this.errors[kind] ?? 0) + 1;
  }

  /** Record answers without individual times. */
  batch(requests: number, tokens: number): void {
    this.requests += requests;
    this.tokens += tokens;
  }

  get failures(): number {
    return Object.values(this.errors).reduce((sum, count) => sum + count, 0);
  }

  /** Add the record of another. */
  add(other: Recorder): void {
    this.times.add(other.times);
    for (const [name, times] of other.shapes) this.#shape(name).add(times);
    for (const [kind, count] of Object.entries(other.errors))
      this.errors[kind] = (this.errors[kind] ?? 0) + count;
  }

  #shape(name: string): TimesRecorder {
    const known = this.shapes.get(name) ?? new TimesRecorder();
    this.shapes.set(name, known);
    return known;
  }
}
