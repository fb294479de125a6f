/** Steps as a listener sees them: with text, which takes the canvases to date. */

import type { StepRecord } from "../diffusion/sampler.ts";
import type { Model } from "../model/model.ts";
import type { PreparedRequest } from "./request.ts";

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
  /** The generated part so far, masked positions as ░. */
  text: string;
  /** Absent in a plain step, and where nothing was revealed. */
  guidance?: StepGuidance;
}

/** A finished step of one sample of a request. */
export interface SampleRecord {
  sample: number;
  record: StepRecord;
}

/** Tells the steps of one request, given in order; keeps the canvases between them. */
export class Narrator {
  /** [n, length] the generated part of each sample. */
  readonly #generated: Int32Array[];

  constructor(
    readonly model: Model,
    readonly request: PreparedRequest,
  ) {
    const { n, length } = request;
    const maskId = model.manifest.mask_token_id;
    this.#generated = Array.from({ length: n }, () => new Int32Array(length).fill(maskId));
  }

  /** The next step. */
  tell({ sample, record }: SampleRecord): StepEvent {
    const { tokenizer } = this.model;
    const generated = this.#generated[sample]!;
    const start = this.request.promptTokens.length;
    for (const { position, token } of record.revealed) generated[position - start] = token;
    return {
      sample,
      step: record.step + 1,
      steps: this.request.steps,
      t: record.t,
      revealed: record.revealed.map(({ position, token, logprob }) => ({
        position,
        token,
        text: tokenizer.tokenText(token),
        logprob,
      })),
      masked: record.masked,
      text: tokenizer.decode(generated),
      ...guidanceOf(record),
    };
  }
}

function guidanceOf({ kind, rewards, chosen }: StepRecord): { guidance?: StepGuidance } {
  if (kind === "plain" || rewards.length === 0) return {};
  return { guidance: { kind, rewards, ...(chosen !== undefined && { chosen }) } };
}
