/**
 * The ancestral sampler. Whether a step reveals a position does not depend on the model, so the positions are
 * drawn before the pass: only they need the output head, and a step that reveals nothing needs no pass.
 */

import { type BlockSteps, blockAt, blockCount, stepsOf } from "./blocks.ts";
import { Canvas, type Reveal } from "./canvas.ts";
import { chooseCandidate, stepKind, tiltScale } from "./guidance.ts";
import { Particles } from "./particles.ts";
import { chooseUniform, remaskUniform, uniformsAt } from "./philox.ts";
import { probeUniform } from "./probe.ts";
import { remaskEnd, remaskProbabilities, remaskProbability } from "./remask.ts";
import { gridTime, maskedAfter, type Schedule, stayProbability } from "./schedule.ts";
import { type Ranking, type Selection, select } from "./selection.ts";
import { spread } from "./spread.ts";
import {
  checkFit,
  type DrawPlan,
  type Draws,
  isDrawn,
  isEmpty,
  type Passes,
  type SampleParams,
  type StepPlan,
  type StepRecord,
} from "./step.ts";

/**
 * Part of the key of shared answers. Raise it with every change that gives a request other tokens,
 * log-probabilities or rewards on the same model; the golden vectors of the oracles show such a change.
 */
export const SAMPLER_VERSION = 2;

/** The state of one sample. Alternate `plan` and `apply` until `done`. */
export class Sample {
  readonly canvas: Canvas;
  readonly passes: Passes = { student: 0, discriminator: 0, gradient: 0 };
  /** The block of each position that is masked at the start. */
  readonly #blockOf: ReadonlyMap<number, number>;
  readonly #blocks: number;
  /** With order `spread`: the step that reveals each position. */
  readonly #stepOf: ReadonlyMap<number, number>;
  /** True if a step may reveal more than its share, so that the sample may need fewer steps. */
  readonly #isAdaptive: boolean;
  /** Log-probability of each revealed position that may be masked again. */
  readonly #logprobs = new Map<number, number>();
  /** The start of each block with `remask`, and the step from which it masks nothing again. */
  readonly #unsettled: readonly { start: number; until: number }[];
  readonly #particles: Particles | undefined;
  #step = 0;
  #hurried = false;
  #ended = false;

  constructor(
    readonly params: SampleParams,
    readonly schedule: Schedule,
    maskId: number,
  ) {
    this.canvas = new Canvas(params.canvas, maskId);
    if (params.smc) this.#particles = new Particles(params.smc, params.canvas, maskId);
    const { masked } = this.canvas;
    const { blockLength = masked.length, threshold, entropyBudget } = params;
    this.#blocks = blockCount(masked.length, blockLength);
    this.#blockOf = new Map(masked.map((position, i) => [position, Math.floor(i / blockLength)]));
    this.#isAdaptive = threshold !== undefined || entropyBudget !== undefined;
    const { remask, steps } = params;
    this.#stepOf = params.order === "spread" ? spread(params, masked, blockLength) : new Map();
    this.#unsettled = Array.from({ length: remask ? this.#blocks : 0 }, (_, block) => {
      const { start, end } = stepsOf(block, steps, this.#blocks);
      return { start: masked[block * blockLength]!, until: start + remaskEnd(remask!, end - start) };
    });
  }

  /** True when no position is masked and all steps are done, or when `end` was called. */
  get done(): boolean {
    if (this.#ended) return true;
    return this.canvas.masked.length === 0 && (this.#isAdaptive || this.#step >= this.params.steps);
  }

  /** Plan the next step: draw which positions its candidates reveal. Pure; throws RangeError if `done`. */
  plan(): StepPlan {
    if (this.done) throw new RangeError("the sample is finished");
    const { steps, guidance, remask } = this.params;
    const step = this.#step;
    const particles = this.#particles?.canvases;
    const kind = particles ? "smc" : stepKind(guidance, step, steps);
    const block = this.#block;
    const [own, ofBlock] = [step - block.start, block.end - block.start];
    const sigma = remask ? remaskProbability(remask, this.schedule, ofBlock, own) : 0;
    const stay = stayProbability(this.schedule, ofBlock, own, sigma);
    const remasked = this.#remasked(sigma, block);
    const count = particles?.length ?? (kind === "rerank" ? guidance!.candidates : 1);
    return {
      kind,
      step,
      t: gridTime(this.schedule, ofBlock, Math.min(own, ofBlock)),
      stay,
      candidates: Array.from({ length: count }, (_, candidate) =>
        this.#draw(candidate, stay, block, remasked.length, particles?.[candidate]),
      ),
      ...(particles && { canvases: particles.map(({ tokens }) => tokens) }),
      remasked,
      scale: kind === "tilt" ? tiltScale(guidance!, step, steps) : 0,
    };
  }

  /** The block of the next step; of the clean-up pass, the last one. */
  get #block(): BlockSteps {
    return blockAt(Math.min(this.#step, this.params.steps - 1), this.params.steps, this.#blocks);
  }

  /** Return which revealed positions of the block a step masks again. */
  #remasked(sigma: number, { block }: BlockSteps): number[] {
    const { seed, sample, remask } = this.params;
    if (!remask || sigma === 0) return [];
    const shown = [...this.#logprobs].filter(([position]) => this.#blockOf.get(position) === block);
    const chances = remaskProbabilities(
      remask,
      sigma,
      shown.map(([, logprob]) => logprob),
    );
    const key = { seed, sample, step: this.#step };
    return shown
      .map(([position]) => position)
      .filter((position, i) => remaskUniform(key, position) < chances[i]!)
      .sort((a, b) => a - b);
  }

  #draw(
    candidate: number,
    stay: number,
    block: BlockSteps,
    remasked: number,
    { masked } = this.canvas,
  ): DrawPlan {
    const { seed, sample, order } = this.params;
    const key = { seed, sample, step: this.#step, candidate };
    const plan: DrawPlan = { positions: [], uniforms: [] };
    const { given } = this.params;
    if (given) {
      const uniform = probeUniform(given.token, this.canvas.maskId);
      return { positions: [given.position], uniforms: [uniform] };
    }
    const open = masked.filter((position) => this.#blockOf.get(position)! <= block.block);
    if (!isDrawn(order)) {
      plan.selection = this.#selection(order, open.length + remasked, block);
      if (plan.selection.least === 0) return plan;
    }
    for (const position of open) {
      const uniform = uniformsAt(key, position);
      // Past its step is a position that was masked again.
      const waits = order === "random" ? uniform.reveal < stay : this.#stepOf.get(position)! > this.#step;
      if (waits) continue;
      plan.positions.push(position);
      plan.uniforms.push(uniform.draw);
    }
    return plan;
  }

  /** Return how a step chooses in its block, of which `open` positions would be masked without reveals. */
  #selection(ranking: Ranking, open: number, { block, start, end }: BlockSteps): Selection {
    const { threshold, entropyBudget, blockLength = this.#blockOf.size } = this.params;
    const length = Math.min(blockLength, this.#blockOf.size - block * blockLength);
    const share = open - maskedAfter(this.schedule, end - start, this.#step - start, length);
    return { ranking, least: Math.max(share, Number(this.#isAdaptive)), threshold, entropyBudget };
  }

  /** Return the canvases [M, L] of the candidates of a re-ranked step, or of the particles, for scoring. */
  candidateCanvases(plan: StepPlan, draws: readonly Draws[]): Int32Array[] {
    return plan.candidates.map((candidate, i) => {
      const canvas = (plan.canvases?.[i] ?? this.canvas.tokens).slice();
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
   * @param rewards one reward of a tilted step, one for each candidate or particle of others; empty for a
   *   step that reveals nothing
   */
  apply(plan: StepPlan, draws: readonly Draws[], rewards: ArrayLike<number> = []): StepRecord {
    if (plan.step !== this.#step)
      throw new RangeError(`the plan is for step ${plan.step}, and step ${this.#step} is next`);
    const empty = isEmpty(plan);
    if (!empty) checkFit(plan, draws, rewards);
    if (plan.kind === "smc") return this.#applyParticles(plan, draws, rewards, empty);
    const chosen = !empty && plan.kind === "rerank" ? this.#choose(rewards) : undefined;
    const candidate = plan.candidates[chosen ?? 0]!;
    const made = draws[chosen ?? 0];
    const { positions, selection } = candidate;
    const kept = made && selection ? select(selection, made) : positions.map((_, i) => i);
    const revealed = kept
      .map((i): Reveal => ({ position: positions[i]!, token: made!.tokens[i]!, logprob: made!.logprobs[i]! }))
      .filter(({ token }) => plan.kind === "plain" || token !== this.canvas.maskId);
    const { given } = this.params;
    if (given && revealed.some(({ token }) => token !== given.token))
      throw new RangeError(`token ${revealed[0]!.token} was drawn instead of ${given.token}`);
    this.#ended = given !== undefined;
    this.canvas.reveal(revealed);
    this.canvas.remask(plan.remasked);
    this.#advance();
    if (!empty) this.#count(plan);
    const record: StepRecord = {
      kind: plan.kind,
      step: plan.step,
      t: plan.t,
      revealed,
      masked: this.canvas.masked.length,
      rewards: empty ? [] : Array.from(rewards),
      ...(chosen !== undefined && { chosen }),
    };
    if (!this.params.remask) return record;
    for (const { position, logprob } of revealed) this.#logprobs.set(position, logprob);
    for (const position of plan.remasked) this.#logprobs.delete(position);
    return { ...record, remasked: plan.remasked, settled: this.settled };
  }

  #applyParticles(
    plan: StepPlan,
    draws: readonly Draws[],
    rewards: ArrayLike<number>,
    empty: boolean,
  ): StepRecord {
    const { seed, sample, steps } = this.params;
    const reveals = plan.candidates.map(({ positions }, i) =>
      positions.map((position, j): Reveal => {
        const { tokens, logprobs } = draws[i]!;
        return { position, token: tokens[j]!, logprob: logprobs[j]! };
      }),
    );
    const uniform = chooseUniform({ seed, sample, step: this.#step });
    const applied = this.#particles!.apply(reveals, rewards, this.#step + 1 >= steps, uniform);
    this.canvas.reveal(applied.revealed);
    this.#step++;
    if (!empty) this.#count(plan);
    const { kind, step, t } = plan;
    return { kind, step, t, ...applied, masked: this.canvas.masked.length, rewards: Array.from(rewards) };
  }

  /** Position before which revealed tokens no longer change. */
  get settled(): number {
    const open = this.#unsettled.find(({ until }) => this.#step < until);
    return open?.start ?? this.canvas.tokens.length;
  }

  /** Return the canvas [L] with every position masked whose token may still change. */
  get settledTokens(): Int32Array {
    const { settled } = this;
    const tokens = this.canvas.tokens.slice();
    return settled < tokens.length ? tokens.fill(this.canvas.maskId, settled) : tokens;
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
    this.passes.student += kind === "smc" ? candidates.filter(({ positions }) => positions.length).length : 1;
    if (kind === "plain") return;
    this.passes.discriminator += candidates.length;
    if (kind === "tilt") this.passes.gradient++;
  }
}
