/** Render the finished steps of a request and send them to its listener. */

import type { TokenLogprob } from "../../diffusion/canvas.ts";
import type { StepRecord } from "../../diffusion/step.ts";
import type { Model } from "../../model/model.ts";
import type { PreparedRequest } from "../request.ts";
import type { FairLoop } from "./fair-loop.ts";
import { LiveText } from "./text.ts";

/** A revealed position with the text of its token. */
export interface RevealedToken {
  position: number;
  token: number;
  text: string;
  logprob: number;
  /** The most likely tokens at the position, best first; present if asked for. */
  top_logprobs?: TokenLogprob[];
}

/** What guidance did in a step. */
export interface StepGuidance {
  kind: "tilt" | "rerank" | "smc";
  rewards: number[];
  /** Index of the chosen candidate of a re-ranked step, or of the particle that became the sample. */
  chosen?: number;
  /** Of the particles, before resampling. */
  effective_sample_size?: number;
  /** The particle that each particle continues; present if the step resampled. */
  ancestors?: number[];
}

/**
 * Takes the steps of a request. `settled` returns the text so far without what may still change, and is valid
 * until the listener returns.
 */
export type StepListener = (event: StepEvent, settled: () => string) => void;

/** One denoising step of one sample. */
export interface StepEvent {
  sample: number;
  /** From 1; budget + 1 is the clean-up pass. */
  step: number;
  steps: number;
  t: number;
  revealed: RevealedToken[];
  /** Positions masked again; present if the request has `remask`. */
  remasked?: number[];
  /** Tokens before this position can no longer change; present if the request has `remask`. */
  settled?: number;
  masked: number;
  /** Nats, mean over the drawn positions; absent if none was drawn. */
  entropy?: number;
  /** Text of the answer so far, masked positions as ░. */
  text: string;
  /** Absent in a plain step, and in one that drew nothing. */
  guidance?: StepGuidance;
}

/** A finished step of one sample of a request. */
export interface SampleRecord {
  sample: number;
  record: StepRecord;
}

/** Emits each step of one request once, in order, in slices of the event loop. */
export class StepEmitter {
  readonly #texts: LiveText[];
  #records: readonly SampleRecord[] = [];
  #emitted = 0;
  #running = false;
  #stopped = false;
  #error: Error | undefined;
  #whenDone: (() => void)[] = [];
  /** Every step emitted, if the request asks for a trace. */
  readonly trace: StepEvent[] | undefined;

  constructor(
    readonly model: Model,
    readonly request: PreparedRequest,
    readonly onStep: StepListener | undefined,
    readonly loop: FairLoop,
  ) {
    const { params, output } = request;
    this.trace = output.trace ? [] : undefined;
    // Without a listener or a trace no step is rendered.
    const count = onStep || output.trace ? params.samples : 0;
    this.#texts = Array.from({ length: count }, () => new LiveText(model.tokenizer, params.canvas, output));
  }

  /**
   * Emit the steps of `records` that were not emitted yet, at once if the loop has time, otherwise soon.
   * Throws the error of the listener or of a step that cannot be rendered.
   *
   * @param records all steps so far; the array may grow afterwards
   */
  emit(records: readonly SampleRecord[]): void {
    if (this.#texts.length === 0) return;
    this.#records = records;
    if (!this.#running && this.#emitted < records.length) {
      this.#running = true;
      this.loop.run(() => this.#emitNext());
    }
    if (this.#error) throw this.#error;
  }

  /**
   * Emit all of `records`; resolve when they are emitted or the emitter is stopped. Rejects with what `emit`
   * throws.
   */
  async emitAll(records: readonly SampleRecord[]): Promise<void> {
    this.emit(records);
    if (this.#running) await new Promise<void>((resolve) => this.#whenDone.push(resolve));
    if (this.#error) throw this.#error;
  }

  /** Emit nothing more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Emit the next step. Return true if another one follows. */
  #emitNext(): boolean {
    try {
      if (!this.#stopped) {
        const record = this.#records[this.#emitted++]!;
        const event = this.#render(record);
        this.trace?.push(event);
        const { settled } = event;
        this.onStep?.(event, () =>
          settled === undefined ? event.text : this.#texts[record.sample]!.before(settled),
        );
      }
    } catch (error) {
      this.#error = error as Error;
      this.#stopped = true;
    }
    if (!this.#stopped && this.#emitted < this.#records.length) return true;
    this.#running = false;
    for (const resolve of this.#whenDone.splice(0)) resolve();
    return false;
  }

  #render({ sample, record }: SampleRecord): StepEvent {
    const { kind, rewards, chosen, entropy, remasked, settled } = record;
    const { effectiveSampleSize: effective_sample_size, ancestors } = record;
    const guidance =
      kind === "plain" || rewards.length === 0
        ? undefined
        : {
            ...{ kind, rewards, ...(chosen !== undefined && { chosen }) },
            ...(effective_sample_size !== undefined && { effective_sample_size }),
            ...(ancestors && { ancestors }),
          };
    return {
      sample,
      step: record.step + 1,
      steps: this.request.params.steps,
      t: record.t,
      revealed: record.revealed.map(({ position, token, logprob, top }) => ({
        position,
        token,
        text: this.model.tokenizer.tokenText(token),
        logprob,
        ...(top && { top_logprobs: top }),
      })),
      ...(remasked && { remasked }),
      ...(settled !== undefined && { settled }),
      masked: record.masked,
      ...(entropy !== undefined && { entropy }),
      text: this.#texts[sample]!.apply(record),
      ...(guidance && { guidance }),
    };
  }
}
