/** A sample in denoising: its state, the pass it needs next, and how a result changes it. */

import { isEmpty, type Sample } from "../../diffusion/sampler.ts";
import type { StepPlan, StepRecord } from "../../diffusion/step.ts";
import { ModelFailure } from "../../errors.ts";
import type { GraphName } from "../../runtime/protocol.ts";
import type { SampleGroup } from "../sample-group.ts";
import type { DrawRow, RowDraws, ScoreRow } from "./batch.ts";
import type { SchedulableRow } from "./scheduler.ts";
import { GRAPH_COST } from "./speed.ts";

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
    if (this.#drawn || this.sample.done) return "score";
    return this.plan.kind === "tilt" ? "tilt" : "denoise";
  }

  /** Canvases in the next batch. */
  get width(): number {
    return this.#drawn ? this.canvases.length : 1;
  }

  /** Cost of the next pass in token passes (cost.ts). */
  get cost(): number {
    return this.padded * this.width * GRAPH_COST[this.graph];
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
    if (this.plan.kind !== "rerank") return this.#apply(part);
    this.canvases = this.sample.candidateCanvases(this.plan, part.candidates);
    this.#drawn = part;
    return undefined;
  }

  #applyRewards(rewards: number[]): StepRecord | undefined {
    if (this.sample.done) {
      this.reward = rewards[0]!;
      this.sample.passes.discriminator++;
      return undefined;
    }
    if (!this.#drawn) throw new ModelFailure("the worker returned rewards for a row without draws");
    const drawn = this.#drawn;
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
