/** A sample that is being denoised: what it needs next, and what comes of it. */

import { type Draws, isEmpty, type Sample, type StepPlan, type StepRecord } from "../diffusion/sampler.ts";
import type { Schedule } from "../diffusion/schedule.ts";
import { RuntimeFailure } from "../errors.ts";
import type { GraphName } from "../runtime/protocol.ts";
import type { DrawRow, RowDraws, ScoreRow } from "./batch.ts";
import type { SchedulableRow } from "./scheduler.ts";
import { COST } from "./speed.ts";

/** Between two calls a row always has a plan that needs one: steps that reveal nothing are taken at once. */
export class Row<Job> implements DrawRow, ScoreRow, SchedulableRow {
  passedOver = 0;
  plan: StepPlan;
  /** [M, L] of a re-ranked step whose candidates are drawn and not yet scored. */
  canvases: Int32Array[] = [];
  #drawn: Draws[] | undefined;

  constructor(
    readonly job: Job,
    readonly sample: Sample,
    readonly padded: number,
    public attained: number,
  ) {
    this.plan = sample.plan();
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

  /** The graph of the next call. */
  get graph(): GraphName {
    if (this.#drawn) return "score";
    return this.plan.kind === "tilt" ? "tilt" : "denoise";
  }

  get urgent(): boolean {
    return this.sample.hurried;
  }

  /** Leaves out the steps that are left; candidates that wait for their score are dropped. */
  hurry(): void {
    this.sample.hurry();
    this.#drawn = undefined;
    this.canvases = [];
    if (!this.sample.done) this.plan = this.sample.plan();
  }

  /** Canvases in the next call. */
  get width(): number {
    return this.#drawn ? this.canvases.length : 1;
  }

  /** Takes steps that reveal nothing and need no pass, until one does or the sample is done. */
  *skip(): Generator<StepRecord> {
    while (!this.sample.done && isEmpty(this.plan)) yield this.#take([], []);
  }

  /** The answer to a call that drew tokens: a finished step, or nothing if its candidates are to be scored first. */
  takeDraws({ candidates, rewards }: RowDraws): StepRecord | undefined {
    this.#account();
    if (this.plan.kind !== "rerank") return this.#take(candidates, rewards);
    this.canvases = this.sample.candidateCanvases(this.plan, candidates);
    this.#drawn = candidates;
    return undefined;
  }

  /** The answer to a call that scored the candidates. */
  takeRewards(rewards: number[]): StepRecord {
    if (!this.#drawn) throw new RuntimeFailure("rewards came before draws");
    this.#account();
    const drawn = this.#drawn;
    this.#drawn = undefined;
    this.canvases = [];
    return this.#take(drawn, rewards);
  }

  #account(): void {
    this.attained += this.padded * this.width * COST[this.graph];
  }

  #take(draws: readonly Draws[], rewards: readonly number[]): StepRecord {
    const record = this.sample.apply(this.plan, draws, rewards);
    if (!this.sample.done) this.plan = this.sample.plan();
    return record;
  }
}
