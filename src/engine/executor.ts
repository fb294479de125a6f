/**
 * The loop around the model: between two calls generations join and leave, and the scheduler decides
 * anew, so that those of any budget, length and guidance are batched step by step.
 */

import { EventEmitter } from "node:events";
import type { StepRecord } from "../diffusion/sampler.ts";
import type { RuntimePool } from "../runtime/pool.ts";
import type { Budget } from "./budget.ts";
import { type Called, call, callOrder } from "./call.ts";
import { type Clock, WALL_CLOCK } from "./clock.ts";
import type { Generation } from "./generation.ts";
import { Later } from "./later.ts";
import { Row } from "./row.ts";
import { type BatchLimits, paddedLength, type SchedulableRow, schedule, startOf } from "./scheduler.ts";
import { SENT_AHEAD_AT, type Sent, Slots } from "./slots.ts";
import { Speed } from "./speed.ts";

/** Bounds of the loop; all counts. */
export interface ExecutorLimits {
  /** Padded tokens in one call of the model; `auto` takes what was measured on this machine, once it was. */
  maxBatchTokens: number | "auto";
  /** Samples that are denoised side by side; more wait in the queue. */
  maxActive: number;
}

/** What one call of the model did, for metrics and traces. */
export interface BatchReport extends Omit<Called, "outcomes"> {
  /** Padded tokens that a call holds at most. */
  maxTokens: number;
  /** When it was sent, and when its answer came; clock time, milliseconds. */
  sentAt: number;
  answeredAt: number;
  /** Whose canvases were in it. */
  generations: ReadonlySet<Generation>;
}

/** Steps that need no pass and are told between two turns of the event loop. Telling one takes some 20 microseconds. */
const TOLD_AT_ONCE = 256;

/** How often a call of several rows is tried; then they are tried apart. */
const ATTEMPTS_TOGETHER = 2;

interface ExecutorEvents {
  batch: [BatchReport];
  /** A step of a sample was taken. */
  step: [StepRecord];
  /** Every sample of a generation is done, or one of them failed. */
  done: [Generation];
  failed: [Generation, Error];
}

type GenerationRow = Row<Generation>;

/** Runs generations to their end. */
export class Executor extends EventEmitter<ExecutorEvents> {
  #waiting: Generation[] = [];
  #rows: GenerationRow[] = [];
  /** Rows whose call is running. */
  readonly #busy = new Set<GenerationRow>();
  /** Rows that have steps to take that need no pass, in order. */
  readonly #skipping = new Set<GenerationRow>();
  readonly #slots: Slots;
  readonly #later = new Later();
  /** Runtime processes that were replaced so far. */
  #restarts = 0;
  readonly #speed = new Speed();
  /** Bounds of a call: a single row until they are known. */
  bounds: BatchLimits;
  /** The highest that the least attained service of the rows has been. */
  #clock = 0;

  constructor(
    readonly runtime: RuntimePool,
    readonly context: number,
    readonly limits: ExecutorLimits,
    readonly clock: Clock = WALL_CLOCK,
  ) {
    super();
    runtime.on("restart", () => this.#restarts++);
    this.#slots = new Slots(runtime.size, clock, () => this.#sendAhead());
    const maxTokens = limits.maxBatchTokens === "auto" ? 1 : limits.maxBatchTokens;
    this.bounds = { maxTokens, lightTokens: maxTokens };
  }

  /** Generations that wait for a free row. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Clock time at which the one that waits longest was accepted; undefined if none waits. */
  get oldestAcceptedAt(): number | undefined {
    return this.#waiting[0]?.acceptedAt;
  }

  /** Samples being denoised. */
  get active(): number {
    return this.#rows.length;
  }

  /** Takes a generation on. Nothing is run before this returns. */
  add(generation: Generation): void {
    this.#waiting.push(generation);
    setImmediate(() => this.#turn());
  }

  /** Forgets a generation: its rows are free before the next step. */
  remove(generation: Generation): void {
    this.#waiting = this.#waiting.filter((other) => other !== generation);
    this.#rows = this.#rows.filter((row) => row.job !== generation);
  }

  /** Every generation that waits or runs. */
  all(): Generation[] {
    return [...this.#waiting, ...new Set(this.#rows.map((row) => row.job))];
  }

  /** Milliseconds until the backlog is worked off, at the measured speed. */
  backlogMs(): number {
    return this.#workMs(this.all());
  }

  /**
   * Milliseconds that a budget would take if it came now, for so many samples of `length` tokens, those given included: those
   * that wait go first, and those that run share every round of steps with it.
   */
  forecastMs({ steps, guidance }: Budget, samples: number, length: number): number {
    const own = samples * this.#speed.budgetMs(this.#padded(length), steps, guidance);
    const round = this.#rows.reduce((sum, row) => {
      const { steps, guidance } = row.job.computation;
      return sum + this.#speed.budgetMs(row.padded, steps, guidance) / steps;
    }, 0);
    return this.#workMs(this.#waiting) + own + (steps * round) / this.runtime.size;
  }

  #padded(length: number): number {
    return paddedLength(length, this.context);
  }

  /** Milliseconds that these have left at most. */
  #workMs(generations: readonly Generation[]): number {
    const work = (generation: Generation) => this.#speed.workMs(generation, (length) => this.#padded(length));
    return generations.reduce((sum, generation) => sum + work(generation), 0) / this.runtime.size;
  }

  /** Gives waiting generations rows while there are some, those whose deadline comes before `soon` in any case; hurries rows that are due. */
  #admit(soon: number): void {
    const isDue = (generation: Generation) => generation.deadlineAt <= soon;
    const due = this.#waiting.filter(isDue);
    while (this.#waiting.length > 0) {
      const next = due.shift() ?? (this.#rows.length < this.limits.maxActive ? this.#waiting[0] : undefined);
      if (!next) break;
      this.#waiting = this.#waiting.filter((other) => other !== next);
      const rows = next.samples.map((sample) => {
        const padded = this.#padded(sample.canvas.tokens.length);
        return new Row(next, sample, padded, startOf(padded, this.#clock), next.computation.ranked);
      });
      this.#rows.push(...rows);
      for (const row of rows) this.#settle(row);
    }
    for (const row of this.#rows) if (!row.urgent && this.#isFree(row) && isDue(row.job)) row.hurry();
  }

  /** After a step: the row takes those that need no pass, after the rows that came before it. */
  #settle(row: GenerationRow): void {
    this.#skipping.add(row);
    if (this.#skipping.size === 1) this.#skip();
  }

  /** Takes steps that need no pass, some in each turn of the event loop. */
  #skip(): void {
    let left = TOLD_AT_ONCE;
    for (const row of this.#skipping) {
      try {
        while (!row.job.over && row.skips) {
          if (left-- === 0) {
            setImmediate(() => {
              this.#skip();
              this.#turn();
            });
            return;
          }
          this.#announce(row, row.skip());
        }
      } catch (error) {
        this.#fail(row.job, error as Error);
      }
      this.#skipping.delete(row);
      this.#letGo(row);
    }
  }

  /** Lets a row go when its sample is done. */
  #letGo(row: GenerationRow): void {
    if (row.job.over || !row.done) return;
    if (row.reward !== undefined) row.job.rewards[row.sample.params.sample] = row.reward;
    this.#rows = this.#rows.filter((other) => other !== row);
    if (!this.#rows.some(({ job }) => job === row.job))
      this.#later.push(() => {
        if (!row.job.over) this.emit("done", row.job);
      });
  }

  /** Tells a step to those who listen. */
  #announce(row: GenerationRow, record: StepRecord): void {
    this.#later.push(() => {
      if (row.job.over) return;
      try {
        row.job.announce(row.sample, record);
      } catch (error) {
        this.#fail(row.job, error as Error);
      }
    });
  }

  /** True if the row waits for a pass. */
  #isFree(row: GenerationRow): boolean {
    return !this.#busy.has(row) && !this.#skipping.has(row);
  }

  #fail(generation: Generation, error: Error): void {
    if (generation.over) return;
    this.remove(generation);
    this.emit("failed", generation, error);
  }

  /** Starts calls while a runtime process is free and rows wait for a pass; then tells what came of those before. `since` is when it was free, clock time. */
  #turn(since = this.clock.now()): void {
    while (this.#slots.isFree) {
      // Who is not in the call that starts now may be answered only after two: that one and its own.
      this.#admit(this.clock.now() + 2 * this.#speed.msPerCall);
      const rows = schedule(this.#free, this.bounds);
      if (rows.length === 0) break;
      this.#slots.begin(this.#send(rows), since);
    }
    this.#later.tell();
  }

  /** Shortly before a call ends, sends the one that would be sent afterwards, if that is sure: rows share calls as before. */
  #sendAhead(): Sent | undefined {
    // Who is not in it may be answered only after what is left of the one that runs, it, and its own.
    const soon = this.clock.now() + (3 - SENT_AHEAD_AT) * this.#speed.msPerCall;
    this.#admit(soon);
    const free = this.#free;
    const rows = schedule(free, this.bounds);
    const back = [...this.#busy].flatMap(({ job, urgent, afterwards }) =>
      job.over || !afterwards ? [] : [{ ...afterwards, urgent: urgent || job.deadlineAt <= soon }],
    );
    const afterwards = schedule<SchedulableRow>([...free, ...back], this.bounds);
    const isSure = rows.length === afterwards.length && rows.every((row, i) => row === afterwards[i]);
    const sent = rows.length > 0 && isSure ? this.#send(rows) : undefined;
    this.#later.tell();
    return sent;
  }

  /** Rows that wait for a pass. */
  get #free(): GenerationRow[] {
    return this.#rows.filter((row) => this.#isFree(row));
  }

  /** Gives a process the call of these rows. */
  #send(rows: GenerationRow[]): Sent {
    this.#clock = Math.max(this.#clock, Math.min(...this.#rows.map(({ attained }) => attained)));
    for (const row of this.#free) row.passedOver++;
    for (const row of rows) {
      this.#busy.add(row);
      row.passedOver = 0;
    }
    const tokens = rows.reduce((sum, row) => sum + row.width * row.padded, 0);
    const sent: Sent = { expectedMs: this.#speed.callMs(rows[0]!.graph, tokens) };
    void this.#step(callOrder(rows), sent).then((answeredAt) => {
      for (const row of rows) this.#busy.delete(row);
      this.#slots.end(sent, answeredAt);
      this.#turn(answeredAt);
    });
    return sent;
  }

  /** One step of rows that share a call; resolves to when its answer came. Rows whose call fails go apart until the one at fault stands alone. */
  async #step(rows: GenerationRow[], sent: Sent): Promise<number> {
    const sentAt = this.clock.now();
    for (const { job } of rows) job.firstPassAt ??= sentAt;
    const restarts = this.#restarts;
    let answeredAt: number;
    let outcomes: Called["outcomes"];
    try {
      const { outcomes: parts, ...work } = await call(
        this.runtime,
        rows,
        rows.length > 1 ? ATTEMPTS_TOGETHER : undefined,
      );
      outcomes = parts;
      answeredAt = this.clock.now();
      // The time to replace a process says nothing of the next call.
      const isUsual = restarts === this.#restarts;
      const milliseconds = isUsual && sent.since !== undefined ? answeredAt - sent.since : work.milliseconds;
      this.#speed.observe(work.graph, work.paddedTokens, milliseconds);
      const generations = new Set(rows.map(({ job }) => job));
      for (const generation of generations) generation.computeMs += work.milliseconds;
      const report = { ...work, maxTokens: this.bounds.maxTokens, sentAt, answeredAt, generations };
      this.#later.push(() => this.emit("batch", report));
    } catch (error) {
      const left = rows.filter(({ job }) => !job.over);
      if (rows.length === 1) for (const { job } of left) this.#fail(job, error as Error);
      const half = Math.ceil(left.length / 2);
      if (rows.length > 1)
        for (const part of [left.slice(0, half), left.slice(half)])
          if (part.length > 0) await this.#step(part, { ...sent, since: this.clock.now() });
      return this.clock.now();
    }
    for (const [i, row] of rows.entries()) {
      if (row.job.over) continue;
      try {
        const record = outcomes[i]!();
        if (record) {
          this.#announce(row, record);
          this.#later.push(() => this.emit("step", record));
        }
        this.#settle(row);
      } catch (error) {
        // Such as a graph that draws ids outside the vocabulary: its row fails, its neighbours go on.
        this.#fail(row.job, error as Error);
      }
    }
    return answeredAt;
  }
}
