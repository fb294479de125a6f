/** A sample that is being denoised: what it needs next, and what comes of it. */

import { isEmpty, type Sample, type StepPlan, type StepRecord } from "../diffusion/sampler.ts";
import type { Schedule } from "../diffusion/schedule.ts";
import { RuntimeFailure } from "../errors.ts";
import type { GraphName } from "../runtime/protocol.ts";
import type { DrawRow, RowDraws, ScoreRow } from "./batch.ts";
import type { SchedulableRow } from "./scheduler.ts";
import { COST } from "./speed.ts";

/** Between two calls a row always has a plan that needs one: steps that reveal nothing are taken at once. */
export class Row<Job> implements DrawRow, ScoreRow, SchedulableRow {
  passedOver = 0;
  /** Once its deadline has come. */
  urgent = false;
  plan: StepPlan;
  /** [M, L] to be scored: of a re-ranked step whose candidates are drawn, or [1, L] of a finished one. */
  canvases: Int32Array[] = [];
  /** Of a re-ranked step, what waits for the scores. */
  #drawn: RowDraws | undefined;
  /** The finished canvas's, if it is ranked. */
  reward: number | undefined;

  constructor(
    readonly job: Job,
    readonly sample: Sample,
    readonly padded: number,
    public attained: number,
    /** Whether the finished canvas is scored. */
    readonly ranked: boolean,
  ) {
    this.plan = sample.plan();
  }

  /** True once nothing is left to run. */
  get done(): boolean {
    return this.sample.done && (!this.ranked || this.reward !== undefined);
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
    if (this.#drawn || this.sample.done) return "score";
    return this.plan.kind === "tilt" ? "tilt" : "denoise";
  }

  /** Its deadline has come: leaves out the steps that are left; candidates that wait for their score are dropped. */
  hurry(): void {
    this.urgent = true;
    if (this.sample.done) return;
    this.sample.hurry();
    this.#drawn = undefined;
    this.canvases = [];
    this.#goOn();
  }

  /** Canvases in the next call. */
  get width(): number {
    return this.#drawn ? this.canvases.length : 1;
  }

  /** True if the next step reveals nothing and needs no pass. */
  get skips(): boolean {
    return !this.sample.done && isEmpty(this.plan);
  }

  /** What it waits for once its call has been answered, as far as that can be told before; nothing if that is its last. */
  get afterwards(): SchedulableRow | undefined {
    const { padded, urgent, graph, plan } = this;
    const scores = graph === "denoise" && plan.kind === "rerank";
    if (!scores && this.sample.stepsLeft <= 1) return undefined;
    const attained = this.attained + this.#cost;
    const next = scores
      ? ({ graph: "score", width: plan.candidates.length } as const)
      : { graph: graph === "score" ? "denoise" : graph, width: 1 };
    return { ...next, padded, attained, passedOver: 0, urgent };
  }

  /** Takes a step that needs no pass. */
  skip(): StepRecord {
    return this.#take();
  }

  /** The answer to a call that drew tokens: a finished step, or nothing if its candidates are to be scored first. */
  takeDraws(drawn: RowDraws): StepRecord | undefined {
    this.#account();
    if (this.plan.kind !== "rerank") return this.#take(drawn);
    this.canvases = this.sample.candidateCanvases(this.plan, drawn.candidates);
    this.#drawn = drawn;
    return undefined;
  }

  /** The answer to a call that scored the candidates: a finished step; or, at the end, the finished canvas: nothing. */
  takeRewards(rewards: number[]): StepRecord | undefined {
    this.#account();
    if (this.sample.done) {
      this.reward = rewards[0]!;
      this.sample.passes.discriminator++;
      return undefined;
    }
    if (!this.#drawn) throw new RuntimeFailure("rewards came before draws");
    const drawn = this.#drawn;
    this.#drawn = undefined;
    return this.#take({ ...drawn, rewards });
  }

  /** What its call adds to the service that it has attained. */
  get #cost(): number {
    return this.padded * this.width * COST[this.graph];
  }

  #account(): void {
    this.attained += this.#cost;
  }

  /** Takes the step, one that reveals nothing if there are no draws. */
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
