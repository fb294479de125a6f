/**
 * Starts batches and brings their results back to the rows: between two batches requests join and leave, and
 * the scheduler decides anew, so that requests of any budget, length and guidance are batched step by step.
 */

import { EventEmitter } from "node:events";
import type { StepRecord } from "../../diffusion/sampler.ts";
import type { WorkerPool } from "../../runtime/pool.ts";
import type { Budget } from "../budget.ts";
import type { SampleGroup } from "../sample-group.ts";
import { Admission } from "./admission.ts";
import { Row } from "./row.ts";
import { type BatchLimits, paddedLength, schedule, startOf } from "./scheduler.ts";
import { Speed } from "./speed.ts";
import { type PreparedBatch, prepareBatch, update } from "./update.ts";

/** Bounds of the dispatcher; all counts. */
export interface DispatcherLimits {
  /** Padded tokens in one batch; `auto` is DEFAULT_BATCH_TOKENS until `bounds` is set to what was measured. */
  maxBatchTokens: number | "auto";
  /** Samples denoised side by side, each sample of a request counted; more wait in the queue. */
  maxActive: number;
}

/** What one batch did, for metrics and traces. Times are clock times, milliseconds. */
export interface BatchReport extends Pick<PreparedBatch, "graph" | "paddedTokens" | "draws"> {
  /** Canvases in the batch. */
  rows: number;
  /** Padded tokens that a batch holds at most. */
  maxTokens: number;
  /** Milliseconds the graph ran. */
  milliseconds: number;
  sentAt: number;
  answeredAt: number;
  /** Whose canvases were in it. */
  groups: ReadonlySet<SampleGroup>;
}

interface DispatcherEvents {
  batch: [BatchReport];
  /** A step of a sample was taken. */
  step: [StepRecord];
  /** Every sample of a group is done, or one of them failed. */
  done: [SampleGroup];
  failed: [SampleGroup, Error];
}

/** What is told once the next batches are on their way, since a worker need not wait for that. */
interface News {
  /** Whose step or end it is; absent: it is for metrics and traces. */
  group?: SampleGroup;
  tell(): void;
}

/** Steps that need no pass and are taken in one turn of the event loop; each takes some 20 microseconds. */
const SKIPPED_AT_ONCE = 256;

/** Padded tokens in one batch while `auto` has not been measured. */
const DEFAULT_BATCH_TOKENS = 512;

/** How often a batch of several rows is tried; then its rows are tried in smaller ones. */
const ATTEMPTS_TOGETHER = 2;

/** Runs groups to their end. */
export class Dispatcher extends EventEmitter<DispatcherEvents> {
  readonly admission: Admission;
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
    this.admission = new Admission(limits.maxActive);
    this.bounds = { maxTokens, lightTokens: maxTokens, spreadTokens: 0 };
    // Others use the pool, too. Soon, not at once: the result of a batch is applied before the next are chosen.
    pool.on("free", () => {
      if (this.admission.active.some(({ waits }) => waits)) this.#turnSoon();
    });
  }

  /** Sample groups that wait for places of their own: more than those that are free. */
  get waiting(): number {
    return groupsOf(this.admission.queued).length;
  }

  /** Clock time at which the one that waits longest was accepted; undefined if none waits. */
  get oldestAcceptedAt(): number | undefined {
    const isNew = ({ group }: Row) => group.firstPassAt === undefined;
    return this.admission.waiting.find(isNew)?.group.acceptedAt;
  }

  /** Take a group on. Nothing is run before this returns. */
  add(group: SampleGroup): void {
    for (const sample of group.samples)
      this.admission.add(new Row(group, sample, this.#padded(sample.canvas.tokens.length)));
    this.#turnSoon();
  }

  /** Forget a group: its places are free before the next step. */
  remove(group: SampleGroup): void {
    this.admission.remove((row) => row.group === group);
    this.#turnSoon();
  }

  /** Return every group that waits or runs. */
  all(): SampleGroup[] {
    return groupsOf([...this.admission.waiting, ...this.admission.active]);
  }

  /** Return the milliseconds until the backlog is worked off, at the measured speed. */
  backlogMs(): number {
    return this.#workMs([...this.admission.waiting, ...this.admission.active]);
  }

  /**
   * Return the milliseconds that a budget would take if it came now, for so many samples of `length` tokens,
   * those given included: those that wait go first, and those that run share every round of steps with it.
   */
  forecastMs({ steps, guidance }: Budget, samples: number, length: number): number {
    const own = samples * this.#speed.budgetMs(this.#padded(length), steps, guidance);
    const round = this.admission.active.reduce((sum, row) => sum + this.#speed.stepMs(row), 0);
    return this.#workMs(this.admission.waiting) + own + (steps * round) / this.#workers;
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

  /** Start batches, then tell what came of earlier ones. A worker was free for it `since` (clock time). */
  #turn(since = this.clock.now()): void {
    // Who is not in a batch that starts now may be answered only after two: that one and its own.
    const soon = this.clock.now() + 2 * this.#speed.msPerBatch;
    const isDue = ({ group }: Row) => group.deadlineAt <= soon;
    this.#settle();
    if (this.admission.waiting.length > 0) {
      this.admission.fill(isDue);
      for (const row of this.admission.active) row.begin(startOf(row.padded, this.#leastAttained));
      this.#settle();
    }
    const { active } = this.admission;
    for (const row of active) if (!row.urgent && !row.running && isDue(row)) row.hurry();
    const rows = active.filter(({ waits }) => waits);
    for (const batch of schedule(rows, this.bounds, this.pool.free)) void this.#run(batch, since);
    this.#tellNews();
  }

  /** Take steps that need no pass, some in each turn, and let go of rows that are done. */
  #settle(): void {
    let left = SKIPPED_AT_ONCE;
    for (const row of this.admission.active)
      try {
        while (row.skips) {
          if (left-- === 0) {
            this.#turnSoon();
            return;
          }
          this.#took(row, row.skip());
        }
        if (row.done && !row.running) this.#release(row);
      } catch (error) {
        this.#fail(row.group, error as Error);
      }
  }

  /** Free the place of a row that is done. */
  #release(row: Row): void {
    const { group } = row;
    if (row.reward !== undefined) group.rewards[row.sample.params.sample] = row.reward;
    this.admission.remove((other) => other === row);
    if (!this.all().includes(group)) this.#news.push({ group, tell: () => this.emit("done", group) });
    if (this.admission.waiting.length > 0) this.#turnSoon();
  }

  /** Announce a step that a row has taken. */
  #took({ group, sample }: Row, record: StepRecord): void {
    this.#news.push({ group, tell: () => group.announce(sample, record) });
    this.#news.push({ tell: () => this.emit("step", record) });
  }

  #fail(group: SampleGroup, error: Error): void {
    if (group.over) return;
    this.remove(group);
    this.emit("failed", group, error);
  }

  /** Run one batch and apply its result. Rows whose batch fails share smaller ones, down to one row. */
  async #run(together: readonly Row[], since: number): Promise<void> {
    const { active } = this.admission;
    const least = Math.min(...active.map(({ attained }) => attained));
    this.#leastAttained = Math.max(this.#leastAttained, least);
    for (const row of active) if (row.waits) row.passedOver++;
    for (const row of together) {
      row.running = true;
      row.passedOver = 0;
      row.group.tokenPasses += row.cost;
    }
    let answeredAt: number | undefined;
    try {
      const sentAt = this.clock.now();
      const { restarts } = this.pool;
      const batch = prepareBatch(together);
      for (const { group } of together) group.firstPassAt ??= sentAt;
      const attempts = together.length > 1 ? ATTEMPTS_TOGETHER : undefined;
      const result = await this.pool.run(batch.graph, batch.input, attempts);
      answeredAt = this.clock.now();
      // The time to replace a process says nothing of the next batch.
      const taken = restarts === this.pool.restarts ? answeredAt - since : result.milliseconds;
      this.#speed.observe(batch.graph, batch.paddedTokens, taken);
      for (const row of together) row.running = false;
      this.#report(batch, { milliseconds: result.milliseconds, sentAt, answeredAt });
      for (const { row, ...outcome } of update(batch, result))
        if ("error" in outcome) this.#fail(row.group, outcome.error);
        else if (outcome.record) this.#took(row, outcome.record);
    } catch (error) {
      for (const row of together) {
        row.running = false;
        row.group.tokenPasses -= row.cost;
        row.company = Math.ceil(together.length / 2);
      }
      if (together.length === 1) this.#fail(together[0]!.group, error as Error);
    }
    this.#turn(answeredAt);
  }

  #report(
    { rows, graph, input, paddedTokens, draws }: PreparedBatch,
    times: Pick<BatchReport, "milliseconds" | "sentAt" | "answeredAt">,
  ): void {
    const groups = new Set(groupsOf(rows));
    for (const group of groups) group.computeMs += times.milliseconds;
    const { maxTokens } = this.bounds;
    const report = { graph, rows: input.rows, paddedTokens, maxTokens, draws, ...times, groups };
    this.#news.push({ tell: () => this.emit("batch", report) });
  }

  /** Tell news in order. A request whose step or answer cannot be put together fails. */
  #tellNews(): void {
    for (const { group, tell } of this.#news.splice(0)) {
      if (group?.over) continue;
      try {
        tell();
      } catch (error) {
        if (group) this.#fail(group, error as Error);
        else process.emitWarning(error as Error);
      }
    }
  }
}

const groupsOf = (rows: readonly Row[]) => [...new Set(rows.map(({ group }) => group))];
