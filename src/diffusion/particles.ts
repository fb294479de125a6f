/**
 * Sequential Monte Carlo over the particles of a sample (Feynman-Kac steering, arXiv 2501.06848). Each
 * particle takes plain steps on a canvas of its own. A step multiplies its weight by exp(r - r'), with r the
 * reward of its canvas and r' that before the step, so that the weights and the plain sampler together make
 * p(x) exp(r(x)).
 */

import { Canvas, type Reveal } from "./canvas.ts";
import { chooseCandidate } from "./guidance.ts";

/** Settings of sequential Monte Carlo. */
export interface Smc {
  /** At least 2. */
  particles: number;
  /** Resample when the effective sample size is below this share of the particles; in [0, 1]. */
  resampleBelow: number;
}

/** What a step did to the particles. */
export interface ParticleStep {
  /** Positions whose token is known now, ascending. */
  revealed: Reveal[];
  /** Effective sample size before resampling, in [1, particles]. */
  effectiveSampleSize: number;
  /** The particle that each particle continues; absent if none was resampled. */
  ancestors?: number[];
  /** The particle that became the sample. */
  chosen?: number;
}

/** Return the weights, which sum to 1, of their logarithms up to a constant. */
function normalised(logWeights: readonly number[]): number[] {
  const top = Math.max(...logWeights);
  const weights = logWeights.map((weight) => Math.exp(weight - top));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/** Return the effective sample size: 1 over the sum of the squared weights, which sum to 1. */
export function effectiveSampleSize(logWeights: readonly number[]): number {
  return 1 / normalised(logWeights).reduce((sum, weight) => sum + weight * weight, 0);
}

/**
 * Return the particle that each of K particles continues, by systematic resampling: particle i takes the
 * first one whose cumulative weight reaches (i + uniform) / K.
 *
 * @param uniform in (0, 1)
 */
export function resample(logWeights: readonly number[], uniform: number): number[] {
  const weights = normalised(logWeights);
  let [ancestor, cumulative] = [0, weights[0]!];
  return weights.map((_, i) => {
    const at = (i + uniform) / weights.length;
    while (cumulative < at && ancestor < weights.length - 1) cumulative += weights[++ancestor]!;
    return ancestor;
  });
}

/** The particles of one sample. */
export class Particles {
  #canvases: Canvas[];
  /** Reveals of each particle by position; particles with a common ancestor hold the same objects. */
  #reveals: Map<number, Reveal>[];
  #logWeights: number[];
  #rewards: number[];
  readonly #shown = new Set<number>();

  constructor(
    readonly settings: Smc,
    tokens: readonly number[],
    readonly maskId: number,
  ) {
    const each = <T>(make: () => T) => Array.from({ length: settings.particles }, make);
    this.#canvases = each(() => new Canvas(tokens, maskId));
    this.#reveals = each(() => new Map());
    this.#logWeights = each(() => 0);
    this.#rewards = each(() => 0);
  }

  /** Canvas of each particle. */
  get canvases(): readonly Canvas[] {
    return this.#canvases;
  }

  /**
   * Apply the reveals and rewards of a step. A token is known once every particle has it from a common
   * ancestor, or when a particle is chosen, which ends the sample.
   *
   * @param reveals of each particle
   * @param rewards one for each particle; empty if the step revealed nothing
   * @param isLast true if no step follows once every particle is complete
   * @param uniform in (0, 1)
   */
  apply(
    reveals: readonly (readonly Reveal[])[],
    rewards: ArrayLike<number>,
    isLast: boolean,
    uniform: number,
  ): ParticleStep {
    for (const [i, own] of reveals.entries()) {
      this.#canvases[i]!.reveal(own);
      for (const reveal of own) this.#reveals[i]!.set(reveal.position, reveal);
    }
    if (rewards.length > 0) {
      this.#logWeights = this.#logWeights.map((weight, i) => weight + rewards[i]! - this.#rewards[i]!);
      this.#rewards = Array.from(rewards);
    }
    const { particles, resampleBelow } = this.settings;
    const step = { effectiveSampleSize: effectiveSampleSize(this.#logWeights) };
    if (isLast && this.#canvases.every(({ masked }) => masked.length === 0)) {
      const chosen = chooseCandidate(this.#logWeights, uniform);
      return { ...step, chosen, revealed: this.#show([...this.#reveals[chosen]!.values()]) };
    }
    const resampled = step.effectiveSampleSize < resampleBelow * particles;
    const ancestors = resampled ? resample(this.#logWeights, uniform) : undefined;
    if (ancestors) this.#continue(ancestors);
    const [first, ...others] = this.#reveals;
    const known = [...first!.values()].filter((reveal) =>
      others.every((own) => own.get(reveal.position) === reveal),
    );
    return { ...step, ...(ancestors && { ancestors }), revealed: this.#show(known) };
  }

  #continue(ancestors: readonly number[]): void {
    this.#canvases = ancestors.map((i) => new Canvas([...this.#canvases[i]!.tokens], this.maskId, true));
    this.#reveals = ancestors.map((i) => new Map(this.#reveals[i]!));
    this.#rewards = ancestors.map((i) => this.#rewards[i]!);
    this.#logWeights = ancestors.map(() => 0);
  }

  /** Return those of the reveals that were not shown before, by position, and note them as shown. */
  #show(reveals: readonly Reveal[]): Reveal[] {
    const fresh = reveals.filter(({ position }) => !this.#shown.has(position));
    for (const { position } of fresh) this.#shown.add(position);
    return fresh.sort((a, b) => a.position - b.position);
  }
}
