/** One request on its way through the engine: its samples, its clock, its listener. */

import { type Passes, Sample, type StepRecord } from "../diffusion/sampler.ts";
import type { Model } from "../model/model.ts";
import type { PreparedRequest } from "./request.ts";

/** A revealed position with the text of its token. */
export interface RevealedToken {
  position: number;
  token: number;
  text: string;
  logprob: number;
}

/** One denoising step of one sample, as a listener sees it. */
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

/** What guidance did in a step. */
export interface StepGuidance {
  kind: "tilt" | "rerank";
  rewards: number[];
  /** Which candidate was kept. */
  chosen?: number;
}

/** A finished sample. */
export interface SampleResult {
  text: string;
  tokens: number[];
  /** `deadline` if steps were left out to answer in time; otherwise `stop` if an end of text came, else `length`. */
  finish_reason: "length" | "stop" | "deadline";
}

/** A finished generation: the body of POST /generate's answer. */
export interface GenerationResult {
  id: string;
  model: string;
  seed: number;
  samples: SampleResult[];
  usage: {
    prompt_tokens: number;
    completion_tokens: number;
    steps: number;
    student_passes: number;
    discriminator_passes: number;
    gradient_passes: number;
  };
  timing: { queue_ms: number; compute_ms: number; total_ms: number };
}

const round = (ms: number) => Math.round(ms * 100) / 100;

/** State of one request. The engine drives it; it holds no queue and no clock of its own. */
export class Generation {
  readonly samples: Sample[];
  /** Clock time of the deadline, if there is one. */
  readonly deadlineAt: number;
  firstPassAt: number | undefined;
  computeMs = 0;

  constructor(
    readonly id: string,
    readonly request: PreparedRequest,
    readonly model: Model,
    readonly acceptedAt: number,
    readonly onStep: ((event: StepEvent) => void) | undefined,
  ) {
    this.deadlineAt = acceptedAt + (request.deadlineMs ?? Number.POSITIVE_INFINITY);
    const { promptTokens: prompt, ...rest } = request;
    this.samples = Array.from(
      { length: request.n },
      (_, sample) => new Sample({ prompt, sample, ...rest }, model.schedule, model.manifest.mask_token_id),
    );
  }

  /** Tells the listener, if there is one, about a step of a sample. */
  announce(sample: Sample, record: StepRecord): void {
    if (!this.onStep) return;
    const { tokenizer } = this.model;
    this.onStep({
      sample: sample.params.sample,
      step: record.step + 1,
      steps: sample.params.steps,
      t: record.t,
      revealed: record.revealed.map(({ position, token, logprob }) => ({
        position,
        token,
        text: tokenizer.tokenText(token),
        logprob,
      })),
      masked: record.masked,
      text: tokenizer.decode(this.#generated(sample)),
      ...guidanceOf(record),
    });
  }

  #generated(sample: Sample): Int32Array {
    return sample.canvas.tokens.subarray(sample.params.prompt.length);
  }

  #passes(network: keyof Passes): number {
    return this.samples.reduce((sum, sample) => sum + sample.passes[network], 0);
  }

  /** The answer, once every sample is done; `now` is the clock of `acceptedAt`. */
  result(now: number): GenerationResult {
    const { tokenizer, manifest } = this.model;
    const samples = this.samples.map((sample): SampleResult => {
      const tokens = this.#generated(sample);
      const stopped = tokens.includes(manifest.end_of_text_token_id);
      return {
        text: tokenizer.decode(tokens),
        tokens: [...tokens],
        finish_reason: sample.hurried ? "deadline" : stopped ? "stop" : "length",
      };
    });
    return {
      id: this.id,
      model: manifest.name,
      seed: this.request.seed,
      samples,
      usage: {
        prompt_tokens: this.request.promptTokens.length,
        completion_tokens: samples.reduce((sum, sample) => sum + sample.tokens.length, 0),
        steps: this.request.steps,
        student_passes: this.#passes("student"),
        discriminator_passes: this.#passes("discriminator"),
        gradient_passes: this.#passes("gradient"),
      },
      timing: {
        queue_ms: round((this.firstPassAt ?? now) - this.acceptedAt),
        compute_ms: round(this.computeMs),
        total_ms: round(now - this.acceptedAt),
      },
    };
  }
}

function guidanceOf({ kind, rewards, chosen }: StepRecord): { guidance?: StepGuidance } {
  if (kind === "plain" || rewards.length === 0) return {};
  return { guidance: { kind, rewards, ...(chosen !== undefined && { chosen }) } };
}
