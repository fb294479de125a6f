/**
 * Start batches and apply their results. Requests join and leave between batches, and the scheduler chooses
 * anew each time, so requests of any budget, length and guidance are batched step by step.
 */

import { EventEmitter } from "node:events";
import type { StepRecord } from "../../diffusion/step.ts";
import { MemoryFailure } from "../../errors.ts";
import type { WorkerPool } from "../../runtime/pool.ts";
import type { Budget } from "../budget.ts";
import type { SampleGroup } from "../sample-group.ts";
import { Admission } from "./admission.ts";
import { Row } from "./row.ts";
import { type BatchLimits, paddedLength, schedule, startOf, withoutMemory } from "./scheduler.ts";
import { Speed } from "./speed.ts";
import { type PreparedBatch, prepareBatch, update } from "./update.ts";

/** Bounds of the dispatcher. */
export interface DispatcherLimits {
  /** Padded tokens in one batch. `auto` is DEFAULT_BATCH_TOKENS until `bounds` is set to a measurement. */
  maxBatchTokens: number | "auto";
  /** Samples denoised at a time; more wait in the queue. */
  maxActive: number;
}

/** What one batch did, for metrics and traces. Times are of the dispatcher's clock, milliseconds. */
export interface BatchReport extends Pick<PreparedBatch, "graph" | "paddedTokens" | "draws"> {
  /** Canvases in the batch. */
  rows: number;
  /** Upper bound of padded tokens in a batch. */
  maxTokens: number;
  /** Milliseconds that the graph ran. */
  milliseconds: number;
  sentAt: number;
  answeredAt: number;
  /** Owners of the rows. */
  groups: ReadonlySet<SampleGroup>;
}

interface DispatcherEvents {
  batch: [BatchReport];
  /** A sample finished a step. */
  step: [StepRecord];
  /** Every sample of a group is finished. */
  done: [SampleGroup];
  failed: [SampleGroup, Error];
}

/**
 * A callback deferred until the next batches have been sent. An error in it fails `group`, if there is one.
 */
interface Deferred {
  group?: SampleGroup;
  run(): void;
}

/** Steps without a pass that are taken in one turn of the event loop; each takes about 20 microseconds. */
const MAX_SKIPS = 256;

/** Padded tokens in one batch while `auto` has not been measured. */
const DEFAULT_BATCH_TOKENS = 512;

/** Tries of a batch of several rows before they are tried in smaller batches. */
const SHARED_ATTEMPTS = 2;

/** Runs sample groups to their end. */
export class Dispatcher extends EventEmitter<DispatcherEvents> {
  readonly admission: Admission;
  readonly #speed = new Speed();
  #deferred: Deferred[] = [];
  #turnIsDue = false;
  /** Highest value so far of the least attained service among active rows. */
  #leastAttained = 0;
  /** Bounds of a batch. */
  bounds: BatchLimits;

  /**
   * @param context upper bound of a canvas, tokens
   * @param clock milliseconds
   */
  constructor(
    readonly pool: WorkerPool,
    readonly context: number,
    limits: DispatcherLimits,
    readonly clock: { now(): number } = performance,
  ) {
    super();
    const maxTokens = limits.maxBatchTokens === "auto" ? DEFAULT_BATCH_TOKENS : limits.maxBatchTokens;
    this.admission = new Admission(limits.maxActive);
    this.bounds = { maxTokens, lightTokens: maxTokens, spreadTokens: 0 };
    // Not at once: the result of a batch must be applied before the next ones are chosen.
    pool.on("free", () => {
      if (this.admission.active.some(({ waits }) => waits)) this.#turnSoon();
    });
  }

  /** Number of groups in the queue. */
  get waiting(): number {
    return groupsOf(this.admission.queued).size;
  }

  /** Clock time at which the oldest group without a pass was accepted; undefined if there is none. */
  get oldestAcceptedAt(): number | undefined {
    const isNew = ({ group }: Row) => group.firstPassAt === undefined;
    return this.admission.waiting.find(isNew)?.group.acceptedAt;
  }

  get #rows(): Row[] {
    return [...this.admission.waiting, ...this.admission.active];
  }

  /** Add a group. Nothing runs before this returns. */
  add(group: SampleGroup): void {
    for (const sample of group.samples)
      this.admission.add(new Row(group, sample, this.#padded(sample.canvas.tokens.length)));
    this.#turnSoon();
  }

  /** Remove a group; its places are free before the next step. */
  remove(group: SampleGroup): void {
    this.admission.remove((row) => row.group === group);
    this.#turnSoon();
  }

  /** Return every group that waits or runs. */
  all(): SampleGroup[] {
    return [...groupsOf(this.#rows)];
  }

  /** Estimate the milliseconds until every row is finished. */
  backlogMs(): number {
    return this.#remainingMs(this.#rows);
  }

  /**
   * Estimate the milliseconds that a request would take from now, for `samples` canvases of `length` tokens:
   * waiting rows go first, and active rows share every round of steps with it.
   */
  forecastMs({ steps, guidance }: Budget, samples: number, length: number): number {
    const own = samples * this.#speed.budgetMs(this.#padded(length), steps, guidance);
    const round = this.admission.active.reduce((sum, row) => sum + this.#speed.stepMs(row), 0);
    return this.#remainingMs(this.admission.waiting) + own + (steps * round) / this.#workers;
  }

  #padded(length: number): number {
    return paddedLength(length, this.context);
  }

  /** Workers that share the work; at least 1, since a dead worker is replaced. */
  get #workers(): number {
    return Math.max(1, this.pool.healthy);
  }

  #remainingMs(rows: readonly Row[]): number {
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

  /** Start batches, then run deferred callbacks. `since` is the clock time at which a worker became free. */
  #turn(since = this.clock.now()): void {
    // A row that is not in the next batch may finish only after two: that batch and its own.
    const horizon = this.clock.now() + 2 * this.#speed.msPerBatch;
    const isDue = ({ group }: Row) => group.deadlineAt <= horizon;
    this.#settle();
    if (this.admission.waiting.length > 0) {
      this.admission.admit(isDue);
      for (const row of this.admission.active) row.admit(startOf(row.padded, this.#leastAttained));
      this.#settle();
    }
    const { active } = this.admission;
    for (const row of active) if (!row.urgent && !row.running && isDue(row)) row.hurry();
    const rows = active.filter(({ waits }) => waits);
    for (const batch of schedule(rows, this.bounds, this.pool.free)) void this.#run(batch, since);
    this.#runDeferred();
  }

  /** Take steps that need no pass, at most MAX_SKIPS, and release finished rows. */
  #settle(): void {
    let left = MAX_SKIPS;
    for (const row of this.admission.active)
      try {
        while (row.skips) {
          if (left-- === 0) {
            this.#turnSoon();
            return;
          }
          this.#announce(row, row.skip());
        }
        if (row.done && !row.running) this.#release(row);
      } catch (error) {
        this.#fail(row.group, error as Error);
      }
  }

  #release(row: Row): void {
    const { group } = row;
    if (row.reward !== undefined) group.rewards[row.sample.params.sample] = row.reward;
    this.admission.remove((other) => other === row);
    if (!this.#rows.some((other) => other.group === group))
      this.#deferred.push({ group, run: () => this.emit("done", group) });
    if (this.admission.waiting.length > 0) this.#turnSoon();
  }

  #announce({ group, sample }: Row, record: StepRecord): void {
    this.#deferred.push({ group, run: () => group.announce(sample, record) });
    this.#deferred.push({ run: () => this.emit("step", record) });
  }

  #fail(group: SampleGroup, error: Error): void {
    if (group.ended) return;
    this.remove(group);
    this.emit("failed", group, error);
  }

  /**
   * Run one batch and apply its result. If it fails, its rows may share batches of half as many from then on.
   */
  async #run(rows: readonly Row[], since: number): Promise<void> {
    const { active } = this.admission;
    const least = Math.min(...active.map(({ attained }) => attained));
    this.#leastAttained = Math.max(this.#leastAttained, least);
    for (const row of active) if (row.waits) row.passedOver++;
    for (const row of rows) {
      row.running = true;
      row.passedOver = 0;
      row.group.tokenPasses += row.cost;
    }
    let answeredAt: number | undefined;
    try {
      const sentAt = this.clock.now();
      const { restarts } = this.pool;
      const batch = prepareBatch(rows);
      for (const { group } of rows) group.firstPassAt ??= sentAt;
      const result = await this.pool.run(
        batch.graph,
        batch.input,
        rows.length > 1 ? SHARED_ATTEMPTS : undefined,
      );
      answeredAt = this.clock.now();
      const { milliseconds } = result;
      // The time to replace a worker says nothing about the next batch.
      const taken = restarts === this.pool.restarts ? answeredAt - since : milliseconds;
      this.#speed.observe(batch.graph, batch.paddedTokens, taken);
      for (const row of rows) row.running = false;
      this.#report(batch, { milliseconds, sentAt, answeredAt });
      for (const { row, ...outcome } of update(batch, result))
        if ("error" in outcome) this.#fail(row.group, outcome.error);
        else if (outcome.record) this.#announce(row, outcome.record);
    } catch (error) {
      if (error instanceof MemoryFailure && rows.length > 1) {
        const tokens = rows.reduce((sum, { width, padded }) => sum + width * padded, 0);
        this.bounds = withoutMemory(this.bounds, rows[0]!.padded, tokens);
      }
      for (const row of rows) {
        row.running = false;
        row.group.tokenPasses -= row.cost;
        row.maxRows = Math.ceil(rows.length / 2);
      }
      if (rows.length === 1) this.#fail(rows[0]!.group, error as Error);
    }
    this.#turn(answeredAt);
  }

  #report(
    { rows, graph, input, paddedTokens, draws }: PreparedBatch,
    times: Pick<BatchReport, "milliseconds" | "sentAt" | "answeredAt">,
  ): void {
    const groups = groupsOf(rows);
    for (const group of groups) group.computeMs += times.milliseconds;
    const { maxTokens } = this.bounds;
    const report = { graph, rows: input.rows, paddedTokens, maxTokens, draws, ...times, groups };
    this.#deferred.push({ run: () => this.emit("batch", report) });
  }

  #runDeferred(): void {
    for (const { group, run } of this.#deferred.splice(0)) {
      if (group?.ended) continue;
      try {
        run();
      } catch (error) {
        if (group) this.#fail(group, error as Error);
        else process.emitWarning(error as Error);
      }
    }
  }
}

const groupsOf = (rows: readonly Row[]) => new Set(rows.map(({ group }) => group));
