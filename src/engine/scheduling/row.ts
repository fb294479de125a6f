/** A sample that is being denoised: its state, what it needs next, and what a result does to it. */

import { isEmpty, type Sample, type StepPlan, type StepRecord } from "../../diffusion/sampler.ts";
import type { Schedule } from "../../diffusion/schedule.ts";
import { ModelFailure } from "../../errors.ts";
import type { GraphName } from "../../runtime/protocol.ts";
import type { SampleGroup } from "../sample-group.ts";
import type { DrawRow, RowDraws, ScoreRow } from "./batch.ts";
import type { SchedulableRow } from "./scheduler.ts";
import { GRAPH_COST } from "./speed.ts";

/** The one place that holds the state of a row. */
export class Row implements DrawRow, ScoreRow, SchedulableRow {
  /** Padded tokens of service, plus where it started. */
  attained = 0;
  passedOver = 0;
  company = Number.POSITIVE_INFINITY;
  /** Once its deadline has come. */
  urgent = false;
  /** True while its batch is with the pool. */
  running = false;
  /** The next step; drawn when the row first gets a place. */
  plan!: StepPlan;
  /** [M, L] to be scored: of a re-ranked step whose candidates are drawn, or [1, L] of a finished one. */
  canvases: Int32Array[] = [];
  /** Of a re-ranked step, what waits for the scores. */
  #drawn: RowDraws | undefined;
  /** The finished canvas's, if it is ranked. */
  reward: number | undefined;

  constructor(
    readonly group: SampleGroup,
    readonly sample: Sample,
    readonly padded: number,
  ) {}

  /** True once nothing is left to run. */
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

  /** Get a place; the first time, the count of its service begins at `start`. */
  begin(start: number): void {
    if (this.plan) return;
    this.attained = start;
    this.plan = this.sample.plan();
  }

  get tokens(): Int32Array {
    return this.sample.canvas.tokens;
  }

  get temperature(): number {
    return this.sample.params.temperature;
  }

  get topK(): number {
    return this.sample.params.topK;
  }

  get topP(): number {
    return this.sample.params.topP;
  }

  get schedule(): Schedule {
    return this.sample.schedule;
  }

  get steps(): number {
    return this.sample.params.steps;
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

  /** What the next pass costs, in token passes (cost.ts). */
  get cost(): number {
    return this.padded * this.width * GRAPH_COST[this.graph];
  }

  /** Its deadline has come: leave out the steps that are left, and candidates that wait for a score. */
  hurry(): void {
    this.urgent = true;
    if (this.sample.done) return;
    this.sample.hurry();
    this.#drawn = undefined;
    this.canvases = [];
    this.#goOn();
  }

  /** Take a step that needs no pass. */
  skip(): StepRecord {
    return this.#take();
  }

  /**
   * Take the row's part of a result: its draws, or its scores. Return a finished step; or nothing, if its
   * candidates are to be scored first or the finished canvas was. Throws the part if it is an error.
   */
  take(part: RowDraws | number[] | Error): StepRecord | undefined {
    if (part instanceof Error) throw part;
    this.attained += this.cost;
    this.company = Number.POSITIVE_INFINITY;
    return Array.isArray(part) ? this.#takeRewards(part) : this.#takeDraws(part);
  }

  #takeDraws(drawn: RowDraws): StepRecord | undefined {
    if (this.plan.kind !== "rerank") return this.#take(drawn);
    this.canvases = this.sample.candidateCanvases(this.plan, drawn.candidates);
    this.#drawn = drawn;
    return undefined;
  }

  #takeRewards(rewards: number[]): StepRecord | undefined {
    if (this.sample.done) {
      this.reward = rewards[0]!;
      this.sample.passes.discriminator++;
      return undefined;
    }
    if (!this.#drawn) throw new ModelFailure("rewards came before draws");
    const drawn = this.#drawn;
    this.#drawn = undefined;
    return this.#take({ ...drawn, rewards });
  }

  /** Take the step, one that reveals nothing if there are no draws. */
  #take(drawn?: RowDraws): StepRecord {
    const record = this.sample.apply(this.plan, drawn?.candidates ?? [], drawn?.rewards);
    this.#goOn();
    return drawn ? { ...record, entropy: drawn.entropy } : record;
  }

  /** What comes after a step: another, or the score of the finished canvas, or nothing. */
  #goOn(): void {
    if (this.sample.done) this.canvases = [this.tokens];
    else this.plan = this.sample.plan();
  }
}
