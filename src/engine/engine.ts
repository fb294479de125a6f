/**
 * The engine: requests in, steps out.
 *
 * All state lives here; the runtime only computes. Between two calls requests join and leave, and
 * the scheduler decides anew, so generations of any budget and length are batched step by step.
 */

import { randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import type { StepRecord } from "../diffusion/sampler.ts";
import { CancelledError, OverloadedError, UnavailableError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { GraphName } from "../runtime/protocol.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { denoiseBatch, drawOrder, scoreBatch, splitDraws, splitRewards, tiltBatch } from "./batch.ts";
import { Generation, type GenerationResult, type StepEvent } from "./generation.ts";
import { type GenerateRequest, type GuidanceRequest, type PreparedRequest, prepare } from "./request.ts";
import { costPerStep, Row } from "./row.ts";
import { paddedLength, schedule } from "./scheduler.ts";

/** Bounds of the engine; all counts. */
export interface EngineLimits {
  /** Padded tokens in one call of the model. */
  maxBatchTokens: number;
  /** Samples that are denoised side by side; more wait in the queue. */
  maxActive: number;
  /** Requests that wait; more are refused. */
  maxQueue: number;
}

/** What one call of the model did, for metrics. */
export interface BatchReport {
  graph: GraphName;
  /** Canvases in the call. */
  rows: number;
  paddedTokens: number;
  /** Positions drawn. */
  draws: number;
  /** Milliseconds the graph ran. */
  milliseconds: number;
}

interface EngineEvents {
  batch: [BatchReport];
  finished: [{ outcome: "done" | "cancelled" | "failed"; result?: GenerationResult }];
}

/** A generation that was accepted. */
export interface Ticket {
  id: string;
  /** The seed in use, given or drawn. */
  seed: number;
  /** Rejects with CancelledError after `cancel`, with RuntimeFailure if the model fails. */
  result: Promise<GenerationResult>;
  /** Frees the generation's rows before the next step. Safe to call at any time. */
  cancel(): void;
}

/** A generation with the way to answer it. */
interface Job {
  generation: Generation;
  resolve(result: GenerationResult): void;
  reject(error: Error): void;
  over: boolean;
}

/** Takes requests, batches their steps and answers them. `ready` only after `warmUp`; end it with `drain` or `abort`. */
export class Engine extends EventEmitter<EngineEvents> {
  #waiting: Job[] = [];
  #rows: Row<Job>[] = [];
  #running = false;
  #stopped = false;
  /** Milliseconds of model time per padded token, a moving average. */
  #msPerToken = 0.05;
  /** Milliseconds of a call, a moving average. */
  #msPerCall = 20;
  /** True once the model has run. */
  ready = false;

  constructor(
    readonly model: Model,
    readonly runtime: Runtime,
    readonly limits: EngineLimits,
  ) {
    super();
  }

  /** Requests that wait for a free row. */
  get queueLength(): number {
    return this.#waiting.length;
  }

  /** Samples being denoised. */
  get activeRows(): number {
    return this.#rows.length;
  }

  /** True while requests are taken: the model has run and the engine is not shutting down. */
  get accepting(): boolean {
    return this.ready && !this.#stopped;
  }

  /** Runs every graph of the model once; `ready` from then on. Rejects with RuntimeFailure if it cannot run. */
  async warmUp(): Promise<void> {
    const guidances: (GuidanceRequest | undefined)[] = [undefined];
    // A step that tilts and one that re-ranks.
    if (this.model.manifest.guidance)
      for (const rerank_ratio of [0, 1]) guidances.push({ mode: "rgas", rerank_ratio });
    for (const guidance of guidances) {
      const request = { prompt: "", length: 1, steps: 1, seed: 0, temperature: 1, guidance };
      await this.#enqueue(prepare(this.model, request), undefined).promise;
    }
    this.ready = true;
  }

  /**
   * Accepts a request. Throws InvalidRequestError, OverloadedError or UnavailableError at once;
   * anything later comes through the ticket. Steps are announced after this has returned.
   */
  submit(request: GenerateRequest, onStep?: (event: StepEvent) => void): Ticket {
    if (!this.accepting)
      throw new UnavailableError(
        this.#stopped ? "the server is shutting down" : "the model is still loading",
      );
    const prepared = prepare(this.model, request);
    const free = Math.max(0, this.limits.maxActive - this.#rows.length);
    if (this.#waiting.length >= this.limits.maxQueue + free)
      throw new OverloadedError(
        `${this.#waiting.length} requests are waiting: try again later`,
        this.retryAfter(),
      );
    const { job, promise } = this.#enqueue(prepared, onStep);
    const { id } = job.generation;
    return {
      id,
      seed: prepared.seed,
      result: promise,
      cancel: () => this.#end(job, new CancelledError("cancelled")),
    };
  }

  /** Whole seconds until the backlog is worked off, at the measured speed; 1 to 600. */
  retryAfter(): number {
    const context = this.model.manifest.context_length;
    const remaining = (jobs: Iterable<Generation>) => {
      let tokens = 0;
      for (const { request } of jobs)
        tokens +=
          request.n *
          paddedLength(request.promptTokens.length + request.length, context) *
          Math.min(request.steps, request.length) *
          costPerStep(request.guidance);
      return tokens;
    };
    const backlog =
      remaining(this.#waiting.map((job) => job.generation)) +
      remaining(this.#rows.map((row) => row.job.generation));
    return Math.min(600, Math.max(1, Math.ceil((backlog * this.#msPerToken) / 1000)));
  }

  /** Takes no more requests; resolves when those accepted are finished. */
  async drain(): Promise<void> {
    this.#stopped = true;
    while (this.#waiting.length + this.#rows.length > 0) await once(this, "finished");
  }

  /** Takes no more requests and cancels those accepted. */
  abort(): void {
    this.#stopped = true;
    for (const job of [...this.#waiting, ...this.#rows.map((row) => row.job)])
      this.#end(job, new UnavailableError("the server is shutting down"));
  }

  #enqueue(request: PreparedRequest, onStep: ((event: StepEvent) => void) | undefined) {
    const generation = new Generation(randomUUID(), request, this.model, performance.now(), onStep);
    let job!: Job;
    const promise = new Promise<GenerationResult>((resolve, reject) => {
      job = { generation, resolve, reject, over: false };
    });
    // A client that went away does not look at its result any more.
    promise.catch(() => {});
    this.#waiting.push(job);
    setImmediate(() => void this.#run());
    return { job, promise };
  }

  #end(job: Job, error?: Error): void {
    if (job.over) return;
    job.over = true;
    this.#waiting = this.#waiting.filter((other) => other !== job);
    this.#rows = this.#rows.filter((row) => row.job !== job);
    if (error) {
      this.emit("finished", { outcome: error instanceof CancelledError ? "cancelled" : "failed" });
      job.reject(error);
    } else {
      const result = job.generation.result(performance.now());
      this.emit("finished", { outcome: "done", result });
      job.resolve(result);
    }
  }

  /** Gives waiting requests rows while there are some, those whose deadline has come in any case; hurries rows that are due. */
  #admit(): void {
    const context = this.model.manifest.context_length;
    // A call that starts now may end only after two: the one before it and its own.
    const soon = performance.now() + 2 * this.#msPerCall;
    const isDue = ({ generation }: Job) => generation.deadlineAt <= soon;
    const due = this.#waiting.filter(isDue);
    while (this.#waiting.length > 0) {
      const job = due.shift() ?? (this.#rows.length < this.limits.maxActive ? this.#waiting[0] : undefined);
      if (!job) break;
      this.#waiting = this.#waiting.filter((other) => other !== job);
      const level = this.#rows.reduce(
        (least, row) => Math.min(least, row.attained),
        Number.POSITIVE_INFINITY,
      );
      const start = Number.isFinite(level) ? level : 0;
      const rows = job.generation.samples.map((sample) => new Row<Job>(job, sample, context, start));
      this.#rows.push(...rows);
      for (const row of rows) this.#settle(row);
    }
    for (const row of this.#rows) if (!row.urgent && isDue(row.job)) row.hurry();
  }

  /** After a step: tells the listener of the steps that need no pass, and lets the row go when its sample is done. */
  #settle(row: Row<Job>): void {
    for (const record of row.skip()) {
      if (row.job.over) return;
      row.job.generation.announce(row.sample, record);
    }
    if (!row.sample.done) return;
    this.#rows = this.#rows.filter((other) => other !== row);
    if (row.job.generation.samples.every((sample) => sample.done)) this.#end(row.job);
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      for (;;) {
        this.#admit();
        const rows = schedule(this.#rows, { maxTokens: this.limits.maxBatchTokens });
        if (rows.length === 0) return;
        await this.#step(rows[0]!.graph === "score" ? rows : drawOrder(rows));
      }
    } finally {
      this.#running = false;
    }
  }

  async #step(rows: Row<Job>[]): Promise<void> {
    const now = performance.now();
    for (const { job } of rows) job.generation.firstPassAt ??= now;
    let outcomes: (() => StepRecord | undefined)[];
    try {
      outcomes = await this.#call(rows);
    } catch (error) {
      for (const { job } of rows) this.#end(job, error as Error);
      return;
    }
    for (const [i, row] of rows.entries()) {
      if (row.job.over) continue;
      try {
        const record = outcomes[i]!();
        if (!record) continue;
        row.job.generation.announce(row.sample, record);
        if (!row.job.over) this.#settle(row);
      } catch (error) {
        // Such as a graph that draws ids outside the vocabulary: its row fails, its neighbours go on.
        this.#end(row.job, error as Error);
      }
    }
  }

  /** One call of the graph that these rows share. For each row, what takes its part of the answer, or throws its error. */
  async #call(rows: Row<Job>[]): Promise<(() => StepRecord | undefined)[]> {
    const { graph } = rows[0]!;
    if (graph === "score") {
      const batch = scoreBatch(rows);
      const result = await this.runtime.run(graph, batch);
      this.#report(
        rows,
        { graph, canvases: batch.rows, padded: batch.padded, draws: 0 },
        result.milliseconds,
      );
      return splitRewards(rows, result).map((rewards, i) => () => rows[i]!.takeRewards(orThrow(rewards)));
    }
    const batch = graph === "tilt" ? tiltBatch(rows) : denoiseBatch(rows);
    const result = await this.runtime.run(graph, batch);
    const draws = batch.draws.length;
    this.#report(rows, { graph, canvases: batch.rows, padded: batch.padded, draws }, result.milliseconds);
    return splitDraws(rows, result).map((drawn, i) => () => rows[i]!.takeDraws(orThrow(drawn)));
  }

  #report(
    rows: Row<Job>[],
    call: { graph: GraphName; canvases: number; padded: number; draws: number },
    milliseconds: number,
  ): void {
    const paddedTokens = call.canvases * call.padded;
    this.#msPerCall += 0.1 * (milliseconds - this.#msPerCall);
    if (call.graph === "denoise") this.#msPerToken += 0.1 * (milliseconds / paddedTokens - this.#msPerToken);
    for (const { job } of rows) job.generation.computeMs += milliseconds;
    this.emit("batch", {
      graph: call.graph,
      rows: call.canvases,
      paddedTokens,
      draws: call.draws,
      milliseconds,
    });
  }
}

function orThrow<T>(value: T | Error): T {
  if (value instanceof Error) throw value;
  return value;
}
