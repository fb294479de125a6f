/** Steps as a client sees them: with text, which takes the canvases to date. */

import type { StepRecord } from "../diffusion/sampler.ts";
import type { Model } from "../model/model.ts";
import type { Computation } from "./request.ts";
import { render, type View } from "./text.ts";

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

/** Tells the steps of one request to one client, each once and in order; keeps the canvases between them. */
export class Narrator {
  readonly #canvases: Int32Array[];
  #told = 0;
  /** Every step told, if the client wants a trace. */
  readonly trace: StepEvent[] | undefined;

  constructor(
    readonly model: Model,
    readonly computation: Computation,
    readonly view: View,
    readonly onStep: ((event: StepEvent) => void) | undefined,
  ) {
    this.trace = view.trace ? [] : undefined;
    // A client that only wants the end has no use for them.
    const count = onStep || view.trace ? computation.samples : 0;
    this.#canvases = Array.from({ length: count }, () => Int32Array.from(computation.canvas));
  }

  /** Tells those of `records` that were not told yet. */
  tell(records: readonly SampleRecord[]): void {
    const from = this.#told;
    this.#told = records.length;
    if (!this.onStep && !this.trace) return;
    for (const entry of records.slice(from)) {
      const event = this.#event(entry);
      this.trace?.push(event);
      this.onStep?.(event);
    }
  }

  #event({ sample, record }: SampleRecord): StepEvent {
    const { tokenizer } = this.model;
    const canvas = this.#canvases[sample]!;
    for (const { position, token } of record.revealed) canvas[position] = token;
    return {
      sample,
      step: record.step + 1,
      steps: this.computation.steps,
      t: record.t,
      revealed: record.revealed.map(({ position, token, logprob }) => ({
        position,
        token,
        text: tokenizer.tokenText(token),
        logprob,
      })),
      masked: record.masked,
      ...(record.entropy !== undefined && { entropy: record.entropy }),
      text: render(tokenizer, canvas, this.view).text,
      ...guidanceOf(record),
    };
  }
}

function guidanceOf({ kind, rewards, chosen }: StepRecord): { guidance?: StepGuidance } {
  if (kind === "plain" || rewards.length === 0) return {};
  return { guidance: { kind, rewards, ...(chosen !== undefined && { chosen }) } };
}
