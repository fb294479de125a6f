/**
 * The ancestral sampler. Whether a step reveals a position does not depend on the model, so the positions are
 * drawn before the pass: only they need the output head, and a step that reveals nothing needs no pass.
 */

import { type BlockSteps, blockAt, blockCount } from "./blocks.ts";
import { Canvas, type Reveal } from "./canvas.ts";
import { chooseCandidate, type Guidance, type StepKind, stepKind, tiltScale } from "./guidance.ts";
import { chooseUniform, uniformsAt } from "./philox.ts";
import { probeUniform } from "./probe.ts";
import { gridTime, maskedAfter, type Schedule, stayProbability } from "./schedule.ts";
import { type Predictions, type Ranking, type Selection, select } from "./selection.ts";

/**
 * Part of the key of shared answers. Raise it with every change that gives a request other tokens,
 * log-probabilities or rewards on the same model; the golden vectors of the oracles show such a change.
 */
export const SAMPLER_VERSION = 1;

/**
 * Which positions a step reveals. `random` reveals each with the probability of the step, as in the paper.
 * The others draw a token for every masked position and keep the step's share of them (`select`). They have
 * another distribution, and their output head runs on all masked positions.
 */
export type Order = "random" | Ranking;

/** Parameters of a sample, which determine its tokens together with the model. */
export interface SampleParams {
  /** [L] ids, the mask where text is generated; at least one. */
  canvas: readonly number[];
  /** Step budget, at least 1. */
  steps: number;
  /** Integer in [0, 2^53). */
  seed: number;
  /** Index of the sample in its request. */
  sample: number;
  /** 0 takes the most likely token. */
  temperature: number;
  /** Sample from the k most likely tokens; 0 disables. */
  topK: number;
  /** Then from the fewest tokens whose probabilities add up to this; 1 disables. */
  topP: number;
  order: Order;
  /** With order `confidence`: a step also reveals every token of at least this probability; in [0, 1]. */
  threshold?: number | undefined;
  /** With order `entropy`: a step also reveals positions while their entropies sum up to this, in nats. */
  entropyBudget?: number | undefined;
  /** Masked positions in a block, at least 1; undefined for one block. No more blocks than steps. */
  blockLength?: number | undefined;
  /** Number of most likely tokens to return for each revealed position; absent: none. */
  topLogprobs?: number | undefined;
  /** Reveal this token, for its log-probability; the temperature is then PROBE_TEMPERATURE. */
  given?: number | undefined;
  /** Undefined for the plain sampler. Needs order `random` and one block. */
  guidance?: Guidance | undefined;
}

/** The positions that one candidate of a step reveals, drawn before the model runs. */
export interface DrawPlan {
  /** Positions to reveal, ascending. */
  positions: number[];
  /** One uniform in (0, 1) for each position, for its draw by inverse CDF. */
  uniforms: number[];
  /** Which of the drawn positions to reveal; absent reveals all. */
  selection?: Selection;
}

/** A step before the model runs. */
export interface StepPlan {
  kind: StepKind;
  /** From 0; equal to the budget for the clean-up pass. */
  step: number;
  /** Time at the start of the step; 1 is fully masked. Each block has its own time. */
  t: number;
  /** Probability that a masked position stays masked. */
  stay: number;
  /** One candidate, or M for a re-ranked step. */
  candidates: DrawPlan[];
  /** h of a tilted step, 0 for others. */
  scale: number;
}

/** One token for each planned position of a candidate, and what the model predicted there. */
export interface Draws extends Predictions {
  tokens: ArrayLike<number>;
}

/** A finished step. */
export interface StepRecord {
  kind: StepKind;
  step: number;
  t: number;
  revealed: Reveal[];
  /** Positions still masked after the step. */
  masked: number;
  /** Mean entropy of the predictions at the drawn positions, nats; absent if none was drawn. */
  entropy?: number;
  /** Reward of the soft canvas (tilt) or of each candidate (rerank); empty if nothing was scored. */
  rewards: number[];
  /** Index of the chosen candidate of a re-ranked step. */
  chosen?: number;
}

/** Number of passes, by network. A re-ranked step takes M passes of the discriminator. */
export interface Passes {
  student: number;
  discriminator: number;
  gradient: number;
}

/** The state of one sample. Alternate `plan` and `apply` until `done`. */
export class Sample {
  readonly canvas: Canvas;
  readonly passes: Passes = { student: 0, discriminator: 0, gradient: 0 };
  /** The block of each position that is masked at the start. */
  readonly #blockOf: ReadonlyMap<number, number>;
  readonly #blocks: number;
  /** True if a step may reveal more than its share, so that the sample may need fewer steps. */
  readonly #isAdaptive: boolean;
  #step = 0;
  #hurried = false;
  #ended = false;

  constructor(
    readonly params: SampleParams,
    readonly schedule: Schedule,
    maskId: number,
  ) {
    this.canvas = new Canvas(params.canvas, maskId);
    const { masked } = this.canvas;
    const { blockLength = masked.length, threshold, entropyBudget } = params;
    this.#blocks = blockCount(masked.length, blockLength);
    this.#blockOf = new Map(masked.map((position, i) => [position, Math.floor(i / blockLength)]));
    this.#isAdaptive = threshold !== undefined || entropyBudget !== undefined;
  }

  /** True when no position is masked and all steps are done, or when `end` was called. */
  get done(): boolean {
    if (this.#ended) return true;
    return this.canvas.masked.length === 0 && (this.#isAdaptive || this.#step >= this.params.steps);
  }

  /** Plan the next step: draw which positions its candidates reveal. Pure; throws RangeError if `done`. */
  plan(): StepPlan {
    if (this.done) throw new RangeError("the sample is finished");
    const { steps, guidance } = this.params;
    const step = this.#step;
    const kind = stepKind(guidance, step, steps);
    const block = this.#block;
    const [own, ofBlock] = [step - block.start, block.end - block.start];
    const stay = stayProbability(this.schedule, ofBlock, own);
    const count = kind === "rerank" ? guidance!.candidates : 1;
    return {
      kind,
      step,
      t: gridTime(this.schedule, ofBlock, Math.min(own, ofBlock)),
      stay,
      candidates: Array.from({ length: count }, (_, candidate) => this.#draw(candidate, stay, block)),
      scale: kind === "tilt" ? tiltScale(guidance!, step, steps) : 0,
    };
  }

  /** The block of the next step; of the clean-up pass, the last one. */
  get #block(): BlockSteps {
    const { steps } = this.params;
    return blockAt(Math.min(this.#step, steps - 1), steps, this.#blocks);
  }

  #draw(candidate: number, stay: number, block: BlockSteps): DrawPlan {
    const { seed, sample, order } = this.params;
    const key = { seed, sample, step: this.#step, candidate };
    const plan: DrawPlan = { positions: [], uniforms: [] };
    const open = this.canvas.masked.filter((position) => this.#blockOf.get(position)! <= block.block);
    if (order !== "random") {
      plan.selection = this.#selection(order, open.length, block);
      if (plan.selection.least === 0) return plan;
    }
    for (const position of open) {
      const uniform = uniformsAt(key, position);
      if (order === "random" && uniform.reveal < stay) continue;
      plan.positions.push(position);
      const { given } = this.params;
      plan.uniforms.push(given === undefined ? uniform.draw : probeUniform(given, this.canvas.maskId));
    }
    return plan;
  }

  /** Return how a step chooses among the `open` positions of its block. */
  #selection(ranking: Ranking, open: number, { block, start, end }: BlockSteps): Selection {
    const { threshold, entropyBudget, blockLength = this.#blockOf.size } = this.params;
    const length = Math.min(blockLength, this.#blockOf.size - block * blockLength);
    const share = open - maskedAfter(this.schedule, end - start, this.#step - start, length);
    return { ranking, least: Math.max(share, Number(this.#isAdaptive)), threshold, entropyBudget };
  }

  /** Return the canvases [M, L] of the candidates of a re-ranked step, for scoring. */
  candidateCanvases(plan: StepPlan, draws: readonly Draws[]): Int32Array[] {
    return plan.candidates.map((candidate, i) => {
      const canvas = this.canvas.tokens.slice();
      for (const [j, position] of candidate.positions.entries()) canvas[position] = draws[i]!.tokens[j]!;
      return canvas;
    });
  }

  /**
   * Apply the planned step and return its record. A mask that is drawn in a guided step, by a model that
   * keeps the logit of the mask, leaves its position masked. Throws RangeError if the plan is not the next
   * one, or if the draws or rewards do not fit it.
   *
   * @param draws tokens of each candidate; empty for a step that reveals nothing
   * @param rewards one reward of a tilted step, M of a re-ranked one; empty for a step that reveals nothing
   */
  apply(plan: StepPlan, draws: readonly Draws[], rewards: ArrayLike<number> = []): StepRecord {
    if (plan.step !== this.#step)
      throw new RangeError(`the plan is for step ${plan.step}, and step ${this.#step} is next`);
    const empty = isEmpty(plan);
    if (!empty) checkFit(plan, draws, rewards);
    const chosen = !empty && plan.kind === "rerank" ? this.#choose(rewards) : undefined;
    const candidate = plan.candidates[chosen ?? 0]!;
    const made = draws[chosen ?? 0];
    const { positions, selection } = candidate;
    const kept = made && selection ? select(selection, made) : positions.map((_, i) => i);
    const revealed = kept
      .map((i): Reveal => ({ position: positions[i]!, token: made!.tokens[i]!, logprob: made!.logprobs[i]! }))
      .filter(({ token }) => plan.kind === "plain" || token !== this.canvas.maskId);
    const { given } = this.params;
    if (given !== undefined && revealed.some(({ token }) => token !== given))
      throw new RangeError(`token ${revealed[0]!.token} was drawn instead of ${given}`);
    this.canvas.reveal(revealed);
    this.#advance();
    if (!empty) this.#count(plan);
    const record = {
      kind: plan.kind,
      step: plan.step,
      t: plan.t,
      revealed,
      masked: this.canvas.masked.length,
      rewards: empty ? [] : Array.from(rewards),
    };
    return chosen === undefined ? record : { ...record, chosen };
  }

  /** Go to the next step, past the remaining steps of a block that an adaptive sample has revealed. */
  #advance(): void {
    const { block, end } = this.#block;
    this.#step++;
    if (!this.#isAdaptive || this.#step >= end) return;
    const isOpen = this.canvas.masked.some((position) => this.#blockOf.get(position)! <= block);
    if (!isOpen) this.#step = end;
  }

  /** Steps left in the budget. */
  get stepsLeft(): number {
    return Math.max(0, this.params.steps - this.#step);
  }

  /** True if `hurry` skipped steps. */
  get hurried(): boolean {
    return this.#hurried;
  }

  /** Skip the remaining steps: the next one is the clean-up pass, which reveals every masked position. */
  hurry(): void {
    if (this.#step >= this.params.steps) return;
    this.#hurried = true;
    this.#step = this.params.steps;
  }

  /** End the sample here: what is still masked stays masked. */
  end(): void {
    this.#ended = true;
  }

  #choose(rewards: ArrayLike<number>): number {
    const { seed, sample } = this.params;
    return chooseCandidate(rewards, chooseUniform({ seed, sample, step: this.#step }));
  }

  #count({ kind, candidates }: StepPlan): void {
    this.passes.student++;
    if (kind === "plain") return;
    this.passes.discriminator += candidates.length;
    if (kind === "tilt") this.passes.gradient++;
  }
}

/** Return true if the step reveals nothing and so needs no pass. */
export function isEmpty(plan: StepPlan): boolean {
  return plan.candidates.every(({ positions }) => positions.length === 0);
}

function checkFit(plan: StepPlan, draws: readonly Draws[], rewards: ArrayLike<number>): void {
  const check = (what: string, planned: number, given: number) => {
    if (given !== planned) throw new RangeError(`the plan has ${planned} ${what}, and ${given} were given`);
  };
  check("candidates", plan.candidates.length, draws.length);
  for (const [i, { positions }] of plan.candidates.entries())
    for (const made of [draws[i]!.tokens, draws[i]!.logprobs]) check("tokens", positions.length, made.length);
  check("rewards", plan.kind === "plain" ? 0 : plan.candidates.length, rewards.length);
}
