/** A sample in denoising: its state, the pass it needs next, and how a result changes it. */

import type { Sample } from "../../diffusion/sampler.ts";
import { type Draws, isEmpty, type StepPlan, type StepRecord } from "../../diffusion/step.ts";
import { ModelFailure } from "../../errors.ts";
import { DISCRIMINATOR } from "../../model/manifest.ts";
import { graphOf } from "../../model/model.ts";
import type { GraphName } from "../../runtime/protocol.ts";
import type { SampleGroup } from "../sample-group.ts";
import type { DrawRow, RowDraws, ScoreRow } from "./batch.ts";
import type { SchedulableRow } from "./scheduler.ts";
import { costOf } from "./speed.ts";

/** A canvas of a row that draws tokens. */
export interface DrawPart extends DrawRow {
  owner: Row;
}

/** The rewards of a request that names none. */
const DISCRIMINATED = { [DISCRIMINATOR]: 1 };

/** Owns all state of a row. */
export class Row implements DrawRow, ScoreRow, SchedulableRow {
  attained = 0;
  passedOver = 0;
  maxRows = Number.POSITIVE_INFINITY;
  urgent = false;
  /** True while its batch is with the pool. */
  running = false;
  /** The next step; drawn when the row is admitted for the first time. */
  plan!: StepPlan;
  /** [M, L] canvases to score: the candidates of a re-ranked step, or the finished canvas. */
  canvases: Int32Array[] = [];
  /** Draws of a re-ranked step whose candidates are not scored yet. */
  #drawn: RowDraws | undefined;
  /** [M] values of each reward that has scored `canvases`. */
  #scored: number[][] = [];
  /** Final reward of a ranked sample. */
  reward: number | undefined;

  constructor(
    readonly group: SampleGroup,
    readonly sample: Sample,
    readonly padded: number,
  ) {}

  /** True when no pass is left. */
  get done(): boolean {
    return this.sample.done && (!this.group.params.ranked || this.reward !== undefined);
  }

  /** True if the next step reveals nothing and needs no pass. */
  get skips(): boolean {
    return !this.running && !this.sample.done && isEmpty(this.plan);
  }

  /** True if it waits for a pass. */
  get waits(): boolean {
    return !this.running && !this.done && !this.skips;
  }

  /** The graph of the next pass. */
  get graph(): GraphName {
    if (this.#scores) return graphOf(this.#weights[this.#scored.length]![0]);
    return this.plan.kind === "tilt" ? "tilt" : "denoise";
  }

  /** True if the next pass scores canvases. */
  get #scores(): boolean {
    return this.#drawn !== undefined || this.sample.done;
  }

  /** Name and weight of each reward that the canvases are scored by. */
  get #weights(): [string, number][] {
    const { rewards, rankBy } = this.group.params;
    return Object.entries((this.sample.done ? rankBy : rewards) ?? DISCRIMINATED);
  }

  /** What draws tokens in the next step: the row, or those of its particles that reveal a position. */
  get drawn(): DrawPart[] {
    const { canvases, candidates } = this.plan;
    const { padded, plan, sample } = this;
    if (!canvases) return [{ owner: this, padded, plan, sample }];
    const { params, schedule } = sample;
    return candidates.flatMap((candidate, i) =>
      candidate.positions.length === 0
        ? []
        : {
            ...{ owner: this, padded, plan: { ...plan, candidates: [candidate] } },
            sample: { canvas: { tokens: canvases[i]! }, params, schedule },
          },
    );
  }

  /** Return what the row drew, of the draws of each of `drawn`. */
  join(parts: readonly (RowDraws | Error)[]): RowDraws | Error {
    if (!this.plan.canvases) return parts[0]!;
    const failed = parts.find((part) => part instanceof Error);
    if (failed) return failed;
    const draws = (parts as RowDraws[]).values();
    let [entropy, count] = [0, 0];
    const candidates = this.plan.candidates.map(({ positions }): Draws => {
      if (positions.length === 0) return { tokens: [], logprobs: [], entropies: [] };
      const part = draws.next().value!;
      count += positions.length;
      entropy += part.entropy * positions.length;
      return part.candidates[0]!;
    });
    return { candidates, rewards: [], entropy: entropy / count };
  }

  /** Canvases in the next batch. */
  get width(): number {
    return this.#scores ? this.canvases.length : this.drawn.length;
  }

  /** Cost of the next pass in token passes (cost.ts). */
  get cost(): number {
    return this.padded * this.width * costOf(this.graph);
  }

  /** Admit the row. The first time, its attained service starts at `start` and its first step is planned. */
  admit(start: number): void {
    if (this.plan) return;
    this.attained = start;
    this.plan = this.sample.plan();
  }

  /** Finish early for a deadline: skip the remaining steps and drop candidates that wait for a score. */
  hurry(): void {
    this.urgent = true;
    if (this.sample.done) return;
    this.sample.hurry();
    this.#drawn = undefined;
    this.#scored = [];
    this.canvases = [];
    this.#planNext();
  }

  /** Take a step that needs no pass. */
  skip(): StepRecord {
    return this.#apply();
  }

  /**
   * Apply the row's part of a result: its draws or its rewards. Return the finished step, or undefined if
   * candidates must be scored first or the finished canvas was scored. Throws `part` if it is an error.
   */
  apply(part: RowDraws | number[] | Error): StepRecord | undefined {
    if (part instanceof Error) throw part;
    this.attained += this.cost;
    this.maxRows = Number.POSITIVE_INFINITY;
    if (Array.isArray(part)) return this.#applyRewards(part);
    if (this.plan.kind === "plain" || this.plan.kind === "tilt") return this.#apply(part);
    this.canvases = this.sample.candidateCanvases(this.plan, part.candidates);
    this.#drawn = part;
    return undefined;
  }

  #applyRewards(values: number[]): StepRecord | undefined {
    if (!this.#scores) throw new ModelFailure("the worker returned rewards for a row without draws");
    const weights = this.#weights;
    // The sample counts the first reward of a step itself.
    if (this.sample.done || this.#scored.length > 0) this.sample.passes.discriminator += values.length;
    this.#scored.push(values);
    if (this.#scored.length < weights.length) return undefined;
    const scored = this.#scored;
    const rewards = values.map((_, i) =>
      weights.reduce((sum, [, weight], k) => sum + weight * scored[k]![i]!, 0),
    );
    this.#scored = [];
    if (this.sample.done) {
      this.reward = rewards[0]!;
      return undefined;
    }
    const drawn = this.#drawn!;
    this.#drawn = undefined;
    return this.#apply({ ...drawn, rewards });
  }

  #apply(drawn?: RowDraws): StepRecord {
    const record = this.sample.apply(this.plan, drawn?.candidates ?? [], drawn?.rewards);
    const { maskId } = this.sample.canvas;
    // A guided step may draw the mask; it is no alternative to a token.
    const { topLogprobs = 0 } = this.sample.params;
    for (const reveal of topLogprobs > 0 && drawn?.top ? record.revealed : [])
      reveal.top = drawn!
        .top!.get(reveal.position)!
        .slice(0, topLogprobs)
        .filter(({ token }) => token !== maskId);
    this.group.endIfComplete(this.sample);
    this.#planNext();
    return drawn ? { ...record, entropy: drawn.entropy } : record;
  }

  #planNext(): void {
    if (this.sample.done) this.canvases = [this.sample.canvas.tokens];
    else this.plan = this.sample.plan();
  }
}
