/**
 * The engine: requests in, steps and answers out. All state lives here; workers only compute. A request is
 * checked, then answered from the cache, joined to a running group of the same parameters, or dispatched.
 */

import { EventEmitter, once } from "node:events";
import type { StepRecord } from "../diffusion/step.ts";
import { CancelledError, OverloadedError, UnavailableError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { WorkerPool } from "../runtime/pool.ts";
import type { CacheState } from "./answers/answer.ts";
import {
  type CachedAnswer,
  type CacheLimits,
  cacheKey,
  nothingGenerated,
  ResultCache,
} from "./answers/cache.ts";
import { FairLoop } from "./answers/fair-loop.ts";
import type { SharedCache } from "./answers/shared-cache.ts";
import type { StepListener } from "./answers/step-emitter.ts";
import { emitCost, maxTokenPasses } from "./cost.ts";
import { everyGuidance } from "./decoding.ts";
import { prepare } from "./prepare.ts";
import type { GenerateRequest, PreparedRequest } from "./request.ts";
import { SampleGroup } from "./sample-group.ts";
import { calibrate } from "./scheduling/calibrate.ts";
import { type BatchReport, Dispatcher, type DispatcherLimits } from "./scheduling/dispatcher.ts";
import type { BatchLimits } from "./scheduling/scheduler.ts";
import { type CheckedRequest, type Ending, type RequestHandle, Subscriber } from "./subscriber.ts";

/** Bounds of the engine. */
export interface EngineLimits extends DispatcherLimits {
  /** Requests in the queue; more are refused. */
  maxQueue: number;
  cache: CacheLimits;
}

interface EngineEvents {
  batch: [BatchReport];
  /** A sample finished a step. */
  step: [StepRecord];
  /** A request with a seed was looked up in a cache. */
  lookup: [{ tier: "memory" | "shared"; hit: boolean }];
  /** A request was answered, failed or was cancelled. */
  finished: [Ending];
}

/**
 * Accepts requests once `warmUp` has resolved; end it with `drain` or `abort`.
 *
 * @example
 * const engine = new Engine(model, pool, limits);
 * await engine.warmUp();
 * const { samples } = await engine.submit({ prompt: "Once", steps: 8 }).result;
 */
export class Engine extends EventEmitter<EngineEvents> {
  readonly #dispatcher: Dispatcher;
  /** Running groups that a request with the same key may join. */
  readonly #joinable = new Map<string, SampleGroup>();
  /** Groups being looked up in the shared cache. */
  readonly #lookups = new Set<SampleGroup>();
  /** Requests without an answer yet, those whose steps are still being emitted included. */
  readonly #open = new Set<Subscriber>();
  /** Renders the steps of all requests. */
  readonly #loop = new FairLoop();
  #stopped = false;
  /** True once the model has run. */
  ready = false;

  /**
   * @param shared cache that servers of the same model share, if there is one
   * @param cache that the engines of this process share
   */
  constructor(
    readonly model: Model,
    readonly pool: WorkerPool,
    readonly limits: EngineLimits,
    readonly shared?: SharedCache,
    readonly cache = new ResultCache(limits.cache),
  ) {
    super();
    this.#dispatcher = new Dispatcher(pool, model.manifest.context_length, limits);
    this.#dispatcher.on("batch", (report) => this.emit("batch", report));
    this.#dispatcher.on("step", (record) => this.emit("step", record));
    this.#dispatcher.on("done", (group) => this.#finish(group));
    this.#dispatcher.on("failed", (group, error) => this.#fail(group, error));
  }

  /** Groups in the queue. */
  get queueLength(): number {
    return this.#dispatcher.waiting + this.#lookups.size;
  }

  /** Milliseconds that the oldest of them has waited; 0 for an empty queue. */
  get queueAgeMs(): number {
    const since = this.#dispatcher.oldestAcceptedAt;
    return since === undefined ? 0 : performance.now() - since;
  }

  /** Milliseconds until everything accepted is done, at the measured speed. */
  get backlogMs(): number {
    return this.#dispatcher.backlogMs();
  }

  /** Whole seconds after which a refused request should be sent again: the backlog, 1 to 600. */
  get retryAfter(): number {
    return Math.min(600, Math.max(1, Math.ceil(this.backlogMs / 1000)));
  }

  /** Samples being denoised. */
  get activeRows(): number {
    return this.#dispatcher.admission.active.length;
  }

  /** Bounds of one batch. */
  get bounds(): BatchLimits {
    return this.#dispatcher.bounds;
  }

  /** True while requests are accepted: the model has run and the engine is not shutting down. */
  get accepting(): boolean {
    return this.ready && !this.#stopped;
  }

  /** Run every graph in every worker, `rewards` if asked, then become `ready`. Rejects with ModelFailure. */
  async warmUp(withRewards = false): Promise<void> {
    for (const guidance of everyGuidance(this.model, withRewards)) {
      const prepared = this.#prepare({ prompt: "", steps: 1, seed: 0, temperature: 1, guidance });
      await this.#begin({ ...prepared, key: undefined, cached: undefined, emitCost: 0, cost: 0 }).result;
    }
    await this.pool.warmUp();
    this.ready = true;
  }

  /** With `maxBatchTokens: "auto"`, measure the best batch size unless known. Rejects with ModelFailure. */
  async measureBatches(known?: BatchLimits): Promise<void> {
    if (this.limits.maxBatchTokens === "auto")
      this.#dispatcher.bounds = known ?? (await calibrate(this.model, this.pool));
  }

  /**
   * Check a request: tokenise it, choose its step budget, look it up in the cache and compute its cost, each
   * only once. Throws UnavailableError, OverloadedError (before tokenising) or InvalidRequestError.
   *
   * @param withSteps the caller will listen to its steps
   * @param since `performance.now()` from which it has waited for the model; absent: it has not
   */
  check(request: GenerateRequest, withSteps = false, since?: number): CheckedRequest {
    this.#checkOpen();
    this.#checkQueue();
    const prepared = this.#prepare(request, since);
    const { params, output } = prepared;
    // Alternatives are not kept: they are many times the size of an answer.
    const isKept = request.seed !== undefined && !params.topLogprobs && !params.scored;
    // Engines share a cache: its keys hold the model.
    const key = isKept ? `${this.model.sha256[this.pool.provider]} ${cacheKey(params)}` : undefined;
    const cached = key === undefined ? undefined : this.cache.get(key);
    if (key !== undefined) this.emit("lookup", { tier: "memory", hit: cached !== undefined });
    const emit = emitCost(params, withSteps || output.trace);
    const cost = cached ? emit : Math.max(emit, maxTokenPasses(params, this.model.manifest));
    return { ...prepared, key, cached, emitCost: emit, cost, since };
  }

  /**
   * Start a checked request. Throws UnavailableError or OverloadedError; later errors reject the handle's
   * `result`. `listener` is not called before this returns.
   */
  start(request: CheckedRequest, listener?: StepListener): RequestHandle {
    this.#checkOpen();
    const { key, cached, deadlineMs, params } = request;
    // Scores come all at once: the steps of scored ids show no text.
    const onStep = params.scored ? undefined : listener;
    if (cached) return this.#answerFrom(cached, request, "hit", onStep);
    if (!params.canvas.includes(this.model.manifest.mask_token_id))
      return this.#answerFrom(nothingGenerated(params, this.pool.provider), request, "miss", onStep);
    const running = key === undefined || deadlineMs !== undefined ? undefined : this.#joinable.get(key);
    if (running) return this.#subscribe(running, "shared", request, onStep);
    this.#checkQueue();
    return this.#begin(request, onStep);
  }

  /** Check and start a request; throws what `check` and `start` throw. */
  submit(request: GenerateRequest, onStep?: StepListener): RequestHandle {
    return this.start(this.check(request, onStep !== undefined), onStep);
  }

  /** Accept no more requests; resolve when every accepted one has ended. */
  async drain(): Promise<void> {
    this.#stopped = true;
    while (this.#open.size > 0) await once(this, "finished");
  }

  /** Accept no more requests and reject every accepted one with UnavailableError. */
  abort(): void {
    this.#stopped = true;
    const error = new UnavailableError("the server is shutting down");
    for (const group of [...this.#lookups, ...this.#dispatcher.all()]) {
      this.#lookups.delete(group);
      this.#dispatcher.remove(group);
      this.#fail(group, error);
    }
    for (const subscriber of this.#open) subscriber.stop(error);
  }

  #checkOpen(): void {
    if (this.accepting) return;
    throw new UnavailableError(this.#stopped ? "the server is shutting down" : "the model is still loading");
  }

  #checkQueue(): void {
    const { queueLength } = this;
    if (queueLength < this.limits.maxQueue + this.#dispatcher.admission.free) return;
    throw new OverloadedError(`${queueLength} requests are in the queue: try again later`, this.retryAfter);
  }

  #prepare(request: GenerateRequest, since = performance.now()): PreparedRequest {
    const waited = performance.now() - since;
    return prepare(this.model, request, (...work) => waited + this.#dispatcher.forecastMs(...work));
  }

  #begin(request: CheckedRequest, onStep?: StepListener): RequestHandle {
    const { params, deadlineMs, key, since = performance.now() } = request;
    const group = new SampleGroup(params, this.model, deadlineMs, since, key);
    if (key !== undefined && deadlineMs === undefined) this.#joinable.set(key, group);
    const handle = this.#subscribe(group, "miss", request, onStep);
    if (key !== undefined && this.shared)
      this.#findOrRun(this.shared, group).catch((error: Error) => this.#fail(group, error));
    else this.#dispatcher.add(group);
    return handle;
  }

  /** Answer a group from the shared cache, or dispatch it. */
  async #findOrRun(shared: SharedCache, group: SampleGroup): Promise<void> {
    this.#lookups.add(group);
    const found = await shared.find(group.params, this.pool.provider);
    // Cancelled or aborted during the lookup.
    if (!this.#lookups.delete(group)) return;
    this.emit("lookup", { tier: "shared", hit: found !== undefined });
    if (!found) return this.#dispatcher.add(group);
    group.records.push(...found.records);
    group.firstPassAt = group.acceptedAt;
    this.#close(group);
    this.cache.keep(group.key!, found);
    group.finish(found.outcome, () => performance.now(), "hit");
  }

  #subscribe(group: SampleGroup, cache: CacheState, request: CheckedRequest, onStep?: StepListener) {
    const subscriber = this.#accept(cache, request, onStep);
    group.subscribe(subscriber);
    const cancel = () => {
      subscriber.stop(new CancelledError("cancelled"));
      if (group.ended || !group.leave(subscriber) || group.wanted) return;
      this.#lookups.delete(group);
      this.#dispatcher.remove(group);
      group.ended = true;
      this.#close(group);
    };
    return subscriber.handle(() => Math.max(request.emitCost, group.tokenPasses), cancel);
  }

  #answerFrom(answer: CachedAnswer, request: CheckedRequest, cache: CacheState, onStep?: StepListener) {
    const subscriber = this.#accept(cache, request, onStep);
    return subscriber.handle(() => request.cost, subscriber.answerFrom(answer));
  }

  #accept(cache: CacheState, request: CheckedRequest, onStep?: StepListener): Subscriber {
    const subscriber = new Subscriber(this.model, request, cache, onStep, this.#loop, (ending) => {
      this.#open.delete(subscriber);
      this.emit("finished", ending);
    });
    this.#open.add(subscriber);
    return subscriber;
  }

  #finish(group: SampleGroup): void {
    const { key, params, records } = group;
    const outcome = group.outcome(this.pool.provider);
    this.#close(group);
    if (key !== undefined && !outcome.hurried.includes(true)) {
      const finished = { params, records, outcome };
      this.cache.keep(key, finished);
      void this.shared?.keep(finished, this.pool.provider);
    }
    group.finish(outcome, () => performance.now());
  }

  #fail(group: SampleGroup, error: Error): void {
    this.#close(group);
    group.fail(error);
  }

  /** Let no further request join a group. */
  #close(group: SampleGroup): void {
    if (group.key !== undefined && this.#joinable.get(group.key) === group) this.#joinable.delete(group.key);
  }
}
