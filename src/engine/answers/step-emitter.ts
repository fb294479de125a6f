/** Steps as a client sees them: with text, which takes the canvases to date. */

import type { StepRecord } from "../../diffusion/sampler.ts";
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
}

/** What guidance did in a step. */
export interface StepGuidance {
  kind: "tilt" | "rerank";
  rewards: number[];
  /** Which candidate was kept. */
  chosen?: number;
}

/** One denoising step of one sample. */
export interface StepEvent {
  sample: number;
  /** From 1; budget + 1 is the clean-up pass. */
  step: number;
  steps: number;
  t: number;
  revealed: RevealedToken[];
  masked: number;
  /** Nats, mean over the positions drawn; absent where none was. */
  entropy?: number;
  /** The answer's text so far, masked positions as ░. */
  text: string;
  /** Absent in a plain step, and where nothing was revealed. */
  guidance?: StepGuidance;
}

/** A finished step of one sample of a request. */
export interface SampleRecord {
  sample: number;
  record: StepRecord;
}

/** Tells the steps of one request to one client, each once and in order, in slices of the event loop. */
export class StepEmitter {
  readonly #texts: LiveText[];
  #records: readonly SampleRecord[] = [];
  #told = 0;
  #isTelling = false;
  #stopped = false;
  #error: Error | undefined;
  #whenTold: (() => void)[] = [];
  /** Every step told, if the client wants a trace. */
  readonly trace: StepEvent[] | undefined;

  constructor(
    readonly model: Model,
    readonly request: PreparedRequest,
    readonly onStep: ((event: StepEvent) => void) | undefined,
    readonly turns: FairLoop,
  ) {
    const { params, output } = request;
    this.trace = output.trace ? [] : undefined;
    // A client that only wants the end has no use for them.
    const count = onStep || output.trace ? params.samples : 0;
    this.#texts = Array.from({ length: count }, () => new LiveText(model.tokenizer, params.canvas, output));
  }

  /**
   * Tell those of `records` that were not told yet: at once as far as the turn of the event loop has time, else soon.
   * Throws the error of a listener, or of a step that cannot be put together.
   */
  tell(records: readonly SampleRecord[]): void {
    if (this.#texts.length === 0) return;
    this.#records = records;
    if (!this.#isTelling && this.#told < records.length) {
      this.#isTelling = true;
      this.turns.run(() => this.#tellOne());
    }
    if (this.#error) throw this.#error;
  }

  /** Tell all of them; resolve when they are told, or no longer wanted. Rejects with what `tell` throws. */
  async tellAll(records: readonly SampleRecord[]): Promise<void> {
    this.tell(records);
    if (this.#isTelling) await new Promise<void>((resolve) => this.#whenTold.push(resolve));
    if (this.#error) throw this.#error;
  }

  /** Tell nothing more: the client is gone. */
  stop(): void {
    this.#stopped = true;
  }

  /** Tell the next step; return whether another is to be told. */
  #tellOne(): boolean {
    try {
      if (!this.#stopped) this.#tell(this.#records[this.#told++]!);
    } catch (error) {
      this.#error = error as Error;
      this.#stopped = true;
    }
    if (!this.#stopped && this.#told < this.#records.length) return true;
    this.#isTelling = false;
    for (const resolve of this.#whenTold.splice(0)) resolve();
    return false;
  }

  #tell(entry: SampleRecord): void {
    const event = this.#event(entry);
    this.trace?.push(event);
    this.onStep?.(event);
  }

  #event({ sample, record }: SampleRecord): StepEvent {
    const { tokenizer } = this.model;
    return {
      sample,
      step: record.step + 1,
      steps: this.request.params.steps,
      t: record.t,
      revealed: record.revealed.map(({ position, token, logprob }) => ({
        position,
        token,
        text: tokenizer.tokenText(token),
        logprob,
      })),
      masked: record.masked,
      ...(record.entropy !== undefined && { entropy: record.entropy }),
      text: this.#texts[sample]!.reveal(record.revealed),
      ...guidanceOf(record),
    };
  }
}

function guidanceOf({ kind, rewards, chosen }: StepRecord): { guidance?: StepGuidance } {
  if (kind === "plain" || rewards.length === 0) return {};
  return { guidance: { kind, rewards, ...(chosen !== undefined && { chosen }) } };
}
