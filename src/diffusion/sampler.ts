/**
 * The ancestral sampler, reveal first.
 *
 * Whether a position is revealed in a step does not depend on the model, so the set is drawn
 * before the forward pass: only revealed positions need the output head, and a step that reveals
 * nothing needs no pass. The distribution is that of the textbook sampler, to the letter.
 */

import { Canvas, type Reveal } from "./canvas.ts";
import { uniformsAt } from "./philox.ts";
import { gridTime, type Schedule, stayProbability } from "./schedule.ts";

/** What defines a sample, apart from the model. */
export interface SampleParams {
  prompt: readonly number[];
  /** New tokens, at least 1. */
  length: number;
  /** Step budget, at least 1. */
  steps: number;
  /** Integer in [0, 2^53). */
  seed: number;
  /** Index of the sample in its request. */
  sample: number;
  /** 0 takes the most likely token. */
  temperature: number;
}

/** What a step will reveal, known before the model runs. */
export interface StepPlan {
  /** From 0; equal to the budget for the clean-up pass. */
  step: number;
  /** Time the step starts from: 1 is all masked. */
  t: number;
  /** Positions to reveal, ascending. */
  positions: number[];
  /** One uniform in (0, 1) for each position, for its draw by inverse CDF. */
  uniforms: number[];
}

/** A finished step. */
export interface StepRecord {
  step: number;
  t: number;
  revealed: Reveal[];
  /** Positions still masked after the step. */
  masked: number;
}

/** One sample on its way from all masks to text. Alternate `plan` and `apply` until `done`. */
export class Sample {
  readonly canvas: Canvas;
  /** Forward passes taken so far. */
  passes = 0;
  #step = 0;

  constructor(
    readonly params: SampleParams,
    readonly schedule: Schedule,
    maskId: number,
  ) {
    this.canvas = new Canvas(params.prompt, params.length, maskId);
  }

  /** True once the budget is spent and nothing is masked. */
  get done(): boolean {
    return this.#step >= this.params.steps && this.canvas.masked.length === 0;
  }

  /** Draws the next step's reveal set. Has no side effect; throws RangeError once `done`. */
  plan(): StepPlan {
    if (this.done) throw new RangeError("the sample is finished");
    const { steps, seed, sample } = this.params;
    const step = this.#step;
    const stay = stayProbability(this.schedule, steps, step);
    const key = { seed, sample, step, candidate: 0 };
    const plan: StepPlan = {
      step,
      t: gridTime(this.schedule, steps, Math.min(step, steps)),
      positions: [],
      uniforms: [],
    };
    for (const position of this.canvas.masked) {
      const uniform = uniformsAt(key, position);
      if (uniform.reveal < stay) continue;
      plan.positions.push(position);
      plan.uniforms.push(uniform.draw);
    }
    return plan;
  }

  /**
   * Takes the planned step with the model's draws, one for each planned position (none for an empty
   * step). Throws RangeError if the plan is not the next one or the draws do not fit it.
   */
  apply(plan: StepPlan, tokens: ArrayLike<number>, logprobs: ArrayLike<number>): StepRecord {
    if (plan.step !== this.#step)
      throw new RangeError(`step ${plan.step} does not follow step ${this.#step - 1}`);
    if (tokens.length !== plan.positions.length || logprobs.length !== plan.positions.length)
      throw new RangeError(`${plan.positions.length} draws were planned and ${tokens.length} made`);
    const revealed = plan.positions.map((position, i) => ({
      position,
      token: tokens[i]!,
      logprob: logprobs[i]!,
    }));
    this.canvas.reveal(revealed);
    this.#step++;
    if (revealed.length > 0) this.passes++;
    return { step: plan.step, t: plan.t, revealed, masked: this.canvas.masked.length };
  }
}
