/**
 * Starts batches and brings their results back to the rows: between two batches requests join and leave, and the
 * scheduler decides anew, so that requests of any budget, length and guidance are batched step by step.
 */

import { EventEmitter } from "node:events";
import type { StepRecord } from "../diffusion/sampler.ts";
import type { WorkerPool } from "../runtime/pool.ts";
import type { GraphName } from "../runtime/protocol.ts";
import type { Budget } from "./budget.ts";
import type { Generation } from "./generation.ts";
import { Row } from "./row.ts";
import { type BatchLimits, paddedLength, schedule, startOf } from "./scheduler.ts";
import { Speed } from "./speed.ts";
import { prepareBatch, update } from "./update.ts";

/** Bounds of the dispatcher; all counts. */
export interface DispatcherLimits {
  /** Padded tokens in one batch; `auto` is DEFAULT_BATCH_TOKENS until `bounds` is set to what was measured. */
  maxBatchTokens: number | "auto";
  /** Samples that are denoised side by side, those of one request counted one by one; more wait in the queue. */
  maxActive: number;
}

/** What one batch did, for metrics and traces. Times are clock times, milliseconds. */
export interface BatchReport {
  graph: GraphName;
  /** Canvases in the batch. */
  rows: number;
  /** Canvases times padded length. */
  paddedTokens: number;
  /** Padded tokens that a batch holds at most. */
  maxTokens: number;
  /** Positions drawn. */
  draws: number;
  /** Milliseconds the graph ran. */
  milliseconds: number;
  sentAt: number;
  answeredAt: number;
  /** Whose canvases were in it. */
  generations: ReadonlySet<Generation>;
}

interface DispatcherEvents {
  batch: [BatchReport];
  /** A step of a sample was taken. */
  step: [StepRecord];
  /** Every sample of a generation is done, or one of them failed. */
  done: [Generation];
  failed: [Generation, Error];
}

/** What is announced once the next batches are on their way: a worker need not wait for that. */
type News =
  | { kind: "step"; row: Row; record: StepRecord }
  | { kind: "done"; generation: Generation }
  | { kind: "batch"; report: BatchReport };

/** Steps that need no pass and are taken in one turn of the event loop. Announcing one takes some 20 microseconds. */
const SKIPPED_AT_ONCE = 256;

/** Padded tokens in one batch while `auto` has not been measured. */
const DEFAULT_BATCH_TOKENS = 512;

/** How often a batch of several rows is tried; then its rows are tried in smaller ones. */
const ATTEMPTS_TOGETHER = 2;

/** Runs generations to their end. */
export class Dispatcher extends EventEmitter<DispatcherEvents> {
  /** Rows without a place, in order. */
  #waiting: Row[] = [];
  /** Rows with a place. */
  #active: Row[] = [];
  #news: News[] = [];
  #turnIsDue = false;
  readonly #speed = new Speed();
  /** Bounds of a batch. */
  bounds: BatchLimits;
  /** The highest that the least attained service of the rows has been. */
  #leastAttained = 0;

  constructor(
    readonly pool: WorkerPool,
    readonly context: number,
    readonly limits: DispatcherLimits,
    readonly clock: { now(): number } = performance,
  ) {
    super();
    const maxTokens = limits.maxBatchTokens === "auto" ? DEFAULT_BATCH_TOKENS : limits.maxBatchTokens;
    this.bounds = { maxTokens, lightTokens: maxTokens, spreadTokens: 0 };
    // Others use the pool, too. Soon, not at once: the result of a batch is applied before the next are chosen.
    pool.on("free", () => {
      if (this.#active.some(({ waits }) => waits)) this.#turnSoon();
    });
  }

  /** Generations that wait for places of their own: more than those that are free. */
  get waiting(): number {
    return new Set(this.#waiting.slice(this.#places).map(({ generation }) => generation)).size;
  }

  /** Clock time at which the one that waits longest was accepted; undefined if none waits. */
  get oldestAcceptedAt(): number | undefined {
    return this.#waiting.find(({ generation }) => generation.firstPassAt === undefined)?.generation
      .acceptedAt;
  }

  /** Samples being denoised. */
  get active(): number {
    return this.#active.length;
  }

  /** Places that nobody has or waits for. */
  get free(): number {
    return Math.max(0, this.#places - this.#waiting.length);
  }

  /** Places that nobody has. */
  get #places(): number {
    return Math.max(0, this.limits.maxActive - this.#active.length);
  }

  /** Take a generation on. Nothing is run before this returns. */
  add(generation: Generation): void {
    const { ranked } = generation.computation;
    for (const sample of generation.samples)
      this.#waiting.push(new Row(generation, sample, this.#padded(sample.canvas.tokens.length), ranked));
    this.#turnSoon();
  }

  /** Forget a generation: its places are free before the next step. */
  remove(generation: Generation): void {
    const isOther = (row: Row) => row.generation !== generation;
    this.#waiting = this.#waiting.filter(isOther);
    this.#active = this.#active.filter(isOther);
    this.#turnSoon();
  }

  /** Return every generation that waits or runs. */
  all(): Generation[] {
    return [...new Set([...this.#waiting, ...this.#active].map(({ generation }) => generation))];
  }

  /** Return the milliseconds until the backlog is worked off, at the measured speed. */
  backlogMs(): number {
    return this.#workMs(this.#waiting) + this.#workMs(this.#active);
  }

  /**
   * Return the milliseconds that a budget would take if it came now, for so many samples of `length` tokens, those given
   * included: those that wait go first, and those that run share every round of steps with it.
   */
  forecastMs({ steps, guidance }: Budget, samples: number, length: number): number {
    const own = samples * this.#speed.budgetMs(this.#padded(length), steps, guidance);
    const round = this.#active.reduce((sum, row) => sum + this.#speed.stepMs(row), 0);
    return this.#workMs(this.#waiting) + own + (steps * round) / this.#workers;
  }

  #padded(length: number): number {
    return paddedLength(length, this.context);
  }

  /** Workers that share the work; one that is on its way if there is none. */
  get #workers(): number {
    return Math.max(1, this.pool.healthy);
  }

  /** Milliseconds that these rows have left at most. */
  #workMs(rows: readonly Row[]): number {
    return rows.reduce((sum, row) => sum + this.#speed.rowMs(row), 0) / this.#workers;
  }

  #turnSoon(): void {
    if (this.#turnIsDue) return;
    this.#turnIsDue = true;
    setImmediate(() => {
      this.#turnIsDue = false;
      this.#turn();
    });
  }

  /** Start what can be started, then announce what came of earlier batches. `since` is when a worker was free for it, clock time. */
  #turn(since = this.clock.now()): void {
    // Who is not in a batch that starts now may be answered only after two: that one and its own.
    const soon = this.clock.now() + 2 * this.#speed.msPerBatch;
    const isDue = ({ generation }: Row) => generation.deadlineAt <= soon;
    this.#settle();
    if (this.#waiting.length > 0) {
      this.#admit(isDue);
      this.#settle();
    }
    for (const row of this.#active) if (!row.urgent && !row.running && isDue(row)) row.hurry();
    const rows = this.#active.filter(({ waits }) => waits);
    for (const batch of schedule(rows, this.bounds, this.pool.free)) void this.#run(batch, since);
    this.#announce();
  }

  /**
   * Give rows that wait the places that are free, those that are due first. A due row for which there is none takes that
   * of the row that has had the most; the other one waits meanwhile, so `maxActive` is kept.
   */
  #admit(isDue: (row: Row) => boolean): void {
    const due = this.#waiting.filter(isDue);
    const others = this.#waiting.filter((row) => !isDue(row));
    const displaced: Row[] = [];
    for (const row of due) {
      if (this.#places === 0) {
        const [most] = this.#active
          .filter((other) => !other.running && !other.urgent && !isDue(other))
          .toSorted((a, b) => b.attained - a.attained);
        if (!most) break;
        this.#active.splice(this.#active.indexOf(most), 1);
        displaced.push(most);
      }
      this.#place(row);
    }
    for (const row of [...displaced, ...others].slice(0, this.#places)) this.#place(row);
    const active = new Set(this.#active);
    this.#waiting = [...displaced, ...due, ...others].filter((row) => !active.has(row));
  }

  #place(row: Row): void {
    row.begin(startOf(row.padded, this.#leastAttained));
    this.#active.push(row);
  }

  /** Take steps that need no pass, some in each turn, and let go of rows that are done. */
  #settle(): void {
    let left = SKIPPED_AT_ONCE;
    for (const row of [...this.#active])
      try {
        while (row.skips) {
          if (left-- === 0) {
            this.#turnSoon();
            return;
          }
          this.#news.push({ kind: "step", row, record: row.skip() });
        }
        if (row.done && !row.running) this.#release(row);
      } catch (error) {
        this.#fail(row.generation, error as Error);
      }
  }

  /** Free the place of a row that is done. */
  #release(row: Row): void {
    const { generation } = row;
    if (row.reward !== undefined) generation.rewards[row.sample.params.sample] = row.reward;
    this.#active = this.#active.filter((other) => other !== row);
    if (!this.#active.concat(this.#waiting).some((other) => other.generation === generation))
      this.#news.push({ kind: "done", generation });
    if (this.#waiting.length > 0) this.#turnSoon();
  }

  #fail(generation: Generation, error: Error): void {
    if (generation.over) return;
    this.remove(generation);
    this.emit("failed", generation, error);
  }

  /** Run one batch and apply its result; then it is decided anew. Rows whose batch fails share smaller ones, until the row at fault stands alone. */
  async #run(together: readonly Row[], since: number): Promise<void> {
    this.#leastAttained = Math.max(
      this.#leastAttained,
      Math.min(...this.#active.map(({ attained }) => attained)),
    );
    for (const row of this.#active) if (row.waits) row.passedOver++;
    for (const row of together) {
      row.running = true;
      row.passedOver = 0;
      row.generation.tokenPasses += row.cost;
    }
    let answeredAt: number | undefined;
    try {
      const sentAt = this.clock.now();
      const { restarts } = this.pool;
      const batch = prepareBatch(together);
      for (const { generation } of together) generation.firstPassAt ??= sentAt;
      const attempts = together.length > 1 ? ATTEMPTS_TOGETHER : undefined;
      const result = await this.pool.run(batch.graph, batch.input, attempts);
      answeredAt = this.clock.now();
      // The time to replace a process says nothing of the next batch.
      const taken = restarts === this.pool.restarts ? answeredAt - since : result.milliseconds;
      this.#speed.observe(batch.graph, batch.paddedTokens, taken);
      for (const row of together) row.running = false;
      this.#report(batch, result.milliseconds, sentAt, answeredAt);
      for (const { row, ...outcome } of update(batch, result))
        if ("error" in outcome) this.#fail(row.generation, outcome.error);
        else if (outcome.record) this.#news.push({ kind: "step", row, record: outcome.record });
    } catch (error) {
      for (const row of together) {
        row.running = false;
        row.generation.tokenPasses -= row.cost;
        row.company = Math.ceil(together.length / 2);
      }
      if (together.length === 1) this.#fail(together[0]!.generation, error as Error);
    }
    this.#turn(answeredAt);
  }

  #report(
    { rows, graph, input, paddedTokens, draws }: ReturnType<typeof prepareBatch>,
    milliseconds: number,
    sentAt: number,
    answeredAt: number,
  ): void {
    const generations = new Set(rows.map(({ generation }) => generation));
    for (const generation of generations) generation.computeMs += milliseconds;
    const { maxTokens } = this.bounds;
    const work = { graph, rows: input.rows, paddedTokens, maxTokens, draws };
    this.#news.push({ kind: "batch", report: { ...work, milliseconds, sentAt, answeredAt, generations } });
  }

  /** Announce steps and ends in order. A request whose step or answer cannot be put together fails. */
  #announce(): void {
    for (const news of this.#news.splice(0)) {
      if (news.kind === "batch") {
        this.#observe(() => this.emit("batch", news.report));
        continue;
      }
      const generation = news.kind === "step" ? news.row.generation : news.generation;
      if (generation.over) continue;
      try {
        if (news.kind === "done") this.emit("done", generation);
        else generation.announce(news.row.sample, news.record);
      } catch (error) {
        this.#fail(generation, error as Error);
      }
      if (news.kind === "step") this.#observe(() => this.emit("step", news.record));
    }
  }

  /** Tell metrics and traces: one that fails is no fault of a request. */
  #observe(tell: () => void): void {
    try {
      tell();
    } catch (error) {
      process.emitWarning(error as Error);
    }
  }
}
