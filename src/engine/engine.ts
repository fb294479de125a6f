/**
 * The engine: requests in, steps out.
 *
 * All state lives here; the runtime only computes. A request is checked, answered from the cache,
 * joined to an identical one that is running, or given to the executor.
 */

import { randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import type { StepRecord } from "../diffusion/sampler.ts";
import { CancelledError, OverloadedError, UnavailableError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { WorkerPool } from "../runtime/pool.ts";
import { type Answer, answer, type CacheState } from "./answers/answer.ts";
import { type CachedAnswer, type CacheLimits, cacheKey, ResultCache } from "./answers/cache.ts";
import { FairLoop } from "./answers/fair-loop.ts";
import type { SharedCache } from "./answers/shared-cache.ts";
import { StepEmitter, type StepEvent } from "./answers/step-emitter.ts";
import { emitCost, maxTokenPasses } from "./cost.ts";
import { promiseWithResolvers } from "./deferred.ts";
import { type MaskSpan, maskSpans } from "./layout.ts";
import { type GenerateRequest, type GuidanceRequest, type PreparedRequest, prepare } from "./request.ts";
import { SampleGroup, type Subscriber } from "./sample-group.ts";
import { calibrate } from "./scheduling/calibrate.ts";
import { type BatchReport, Dispatcher, type DispatcherLimits } from "./scheduling/dispatcher.ts";

/** Bounds of the engine. */
export interface EngineLimits extends DispatcherLimits {
  /** Requests that wait; more are refused. */
  maxQueue: number;
  cache: CacheLimits;
}

interface EngineEvents {
  batch: [BatchReport];
  /** A step of a sample was taken. */
  step: [StepRecord];
  /** A request with a seed was looked for among the answers that are kept. */
  lookup: [{ tier: "memory" | "shared"; hit: boolean }];
  /** A request was answered or ended. */
  finished: [{ outcome: "done" | "cancelled" | "failed"; result?: Answer }];
}

/** A request that was accepted. */
export interface RequestHandle {
  id: string;
  /** The seed in use, given or drawn. */
  seed: number;
  /** Where its canvas is masked at first. */
  spans: MaskSpan[];
  /** Rejects with CancelledError after `cancel`, with ModelFailure if the model fails. */
  result: Promise<Answer>;
  /** Token passes that it was priced at: the most that it may come to, but for a clean-up pass. */
  price: number;
  /** Return the token passes that it has come to so far, telling its steps included. */
  spent(): number;
  /** Gives the request up; its rows are free before the next step. Safe to call at any time. */
  cancel(): void;
}

/** A request that was checked: what is known of it once and for all. */
export interface CheckedRequest extends PreparedRequest {
  /** Under which its answer is kept; undefined if it will not come again. */
  key: string | undefined;
  /** The answer, if it is kept. */
  kept: CachedAnswer | undefined;
  /** Token passes that telling the answer costs. */
  telling: number;
  /** Token passes that it may come to. */
  price: number;
}

/** What a handle says of a request from the start. */
const handleOf = (id: string, { params, output, price }: CheckedRequest) => ({
  id,
  seed: params.seed,
  spans: maskSpans(output.layout),
  price,
});

/** Takes requests and answers them. `ready` only after `warmUp`; end it with `drain` or `abort`. */
export class Engine extends EventEmitter<EngineEvents> {
  readonly #dispatcher: Dispatcher;
  readonly #cache: ResultCache;
  /** Running groups that an identical request may join. */
  readonly #shareable = new Map<string, SampleGroup>();
  readonly #keys = new Map<SampleGroup, string>();
  /** Everyone who waits for an answer, its telling included. */
  readonly #open = new Set<Subscriber>();
  /** The time that telling steps takes, shared by all of them. */
  readonly #turns = new FairLoop();
  /** Sample groups that are looked for among the answers of other servers. */
  readonly #looking = new Set<SampleGroup>();
  #stopped = false;
  /** True once the model has run. */
  ready = false;

  constructor(
    readonly model: Model,
    readonly pool: WorkerPool,
    readonly limits: EngineLimits,
    /** Answers that are shared with other servers; absent: none are. */
    readonly shared?: SharedCache,
  ) {
    super();
    this.#cache = new ResultCache(limits.cache);
    this.#dispatcher = new Dispatcher(pool, model.manifest.context_length, limits);
    this.#dispatcher.on("batch", (report) => this.emit("batch", report));
    this.#dispatcher.on("step", (record) => this.emit("step", record));
    this.#dispatcher.on("done", (group) => this.#finish(group));
    this.#dispatcher.on("failed", (group, error) => this.#fail(group, error));
  }

  /** Sample groups that wait for a free row. */
  get queueLength(): number {
    return this.#dispatcher.waiting + this.#looking.size;
  }

  /** Milliseconds that the oldest of them has waited; 0 if none waits. */
  get queueAgeMs(): number {
    const since = this.#dispatcher.oldestAcceptedAt;
    return since === undefined ? 0 : performance.now() - since;
  }

  /** Milliseconds until what waits and runs is worked off, at the measured speed. */
  get backlogMs(): number {
    return this.#dispatcher.backlogMs();
  }

  /** Samples being denoised. */
  get activeRows(): number {
    return this.#dispatcher.admission.active.length;
  }

  /** Bytes of the answers that are kept, estimated. */
  get cacheBytes(): number {
    return this.#cache.bytes;
  }

  /** True while requests are taken: the model has run and the engine is not shutting down. */
  get accepting(): boolean {
    return this.ready && !this.#stopped;
  }

  /** Run every graph once in every worker, then become `ready`. Rejects with ModelFailure if the model does not run. */
  async warmUp(): Promise<void> {
    const guidances: (GuidanceRequest | undefined)[] = [undefined];
    // A step that tilts and one that re-ranks.
    if (this.model.manifest.guidance)
      for (const rerank_ratio of [0, 1]) guidances.push({ mode: "rgas", rerank_ratio });
    for (const guidance of guidances) {
      const request = { prompt: "", steps: 1, seed: 0, temperature: 1, guidance };
      const prepared = this.#prepare(request);
      await this.#begin({ ...prepared, ...{ key: undefined, kept: undefined, telling: 0, price: 0 } }).result;
    }
    await this.pool.warmUp();
    this.ready = true;
  }

  /** With `maxBatchTokens: "auto"`, measure how large a batch should be, while requests run. Rejects with ModelFailure. */
  async measureBatches(): Promise<void> {
    if (this.limits.maxBatchTokens === "auto")
      this.#dispatcher.bounds = await calibrate(this.model, this.pool);
  }

  /** Upper bound of padded tokens in one batch. */
  get batchTokens(): number {
    return this.#dispatcher.bounds.maxTokens;
  }

  /**
   * Check a request, once and for all: it is tokenised, its step budget chosen, looked for among the answers that are
   * kept, and priced; the result is carried along. `isTold`: its steps will be listened to. Throws UnavailableError,
   * OverloadedError (before anything is tokenised) or InvalidRequestError.
   */
  check(request: GenerateRequest, isTold = false): CheckedRequest {
    this.#checkOpen();
    this.#checkQueue();
    const prepared = this.#prepare(request);
    const { params, output } = prepared;
    // A seed that was drawn will not come again.
    const key = request.seed === undefined ? undefined : cacheKey(params);
    const kept = key === undefined ? undefined : this.#cache.get(key);
    if (key !== undefined) this.emit("lookup", { tier: "memory", hit: kept !== undefined });
    const telling = emitCost(params, isTold || output.trace);
    const price = kept ? telling : Math.max(telling, maxTokenPasses(params, this.model.manifest));
    return { ...prepared, key, kept, telling, price };
  }

  /**
   * Start a request that was checked. Throws UnavailableError or OverloadedError at once; anything later comes through
   * the handle. Steps are announced after this has returned.
   */
  start(request: CheckedRequest, onStep?: (event: StepEvent) => void): RequestHandle {
    this.#checkOpen();
    const { key, kept, deadlineMs } = request;
    if (kept) return this.#answerFrom(kept, request, onStep);
    const running = key === undefined || deadlineMs !== undefined ? undefined : this.#shareable.get(key);
    if (running) return this.#subscribe(running, "shared", request, onStep);
    this.#checkQueue();
    return this.#begin(request, onStep);
  }

  /** Check and start a request; throws what they throw. */
  submit(request: GenerateRequest, onStep?: (event: StepEvent) => void): RequestHandle {
    return this.start(this.check(request, onStep !== undefined), onStep);
  }

  #checkOpen(): void {
    if (!this.accepting)
      throw new UnavailableError(
        this.#stopped ? "the server is shutting down" : "the model is still loading",
      );
  }

  #checkQueue(): void {
    if (this.queueLength >= this.limits.maxQueue + this.#dispatcher.admission.free)
      throw new OverloadedError(
        `${this.queueLength} requests are waiting: try again later`,
        this.retryAfter(),
      );
  }

  /** Whole seconds until the backlog is worked off, at the measured speed; 1 to 600. */
  retryAfter(): number {
    return Math.min(600, Math.max(1, Math.ceil(this.backlogMs / 1000)));
  }

  /** Takes no more requests; resolves when those accepted are finished. */
  async drain(): Promise<void> {
    this.#stopped = true;
    while (this.#open.size > 0) await once(this, "finished");
  }

  /** Takes no more requests and ends those accepted. */
  abort(): void {
    this.#stopped = true;
    for (const group of [...this.#looking, ...this.#dispatcher.all()]) {
      this.#looking.delete(group);
      this.#dispatcher.remove(group);
      this.#fail(group, new UnavailableError("the server is shutting down"));
    }
    for (const { emitter, reject } of this.#open) {
      emitter.stop();
      reject(new UnavailableError("the server is shutting down"));
    }
  }

  #prepare(request: GenerateRequest): PreparedRequest {
    return prepare(this.model, request, (...work) => this.#dispatcher.forecastMs(...work));
  }

  #begin(request: CheckedRequest, onStep?: (event: StepEvent) => void): RequestHandle {
    const { params, deadlineMs, key } = request;
    const group = new SampleGroup(params, this.model, deadlineMs, performance.now());
    if (key !== undefined) {
      this.#keys.set(group, key);
      if (deadlineMs === undefined) this.#shareable.set(key, group);
    }
    const handle = this.#subscribe(group, "miss", request, onStep);
    if (key !== undefined && this.shared)
      this.#findOrRun(this.shared, group).catch((error: Error) => this.#fail(group, error));
    else this.#dispatcher.add(group);
    return handle;
  }

  /** Answers a group with what another server computed, or else runs it. */
  async #findOrRun(shared: SharedCache, group: SampleGroup): Promise<void> {
    this.#looking.add(group);
    const found = await shared.find(group.params, this.pool.provider);
    // Given up meanwhile.
    if (!this.#looking.delete(group)) return;
    this.emit("lookup", { tier: "shared", hit: found !== undefined });
    if (!found) return this.#dispatcher.add(group);
    group.records.push(...found.records);
    group.firstPassAt = group.acceptedAt;
    const key = this.#forget(group);
    if (key !== undefined) this.#cache.keep(key, group, found.outcome);
    group.finish(found.outcome, () => performance.now(), "hit");
  }

  #subscribe(
    group: SampleGroup,
    cache: CacheState,
    request: CheckedRequest,
    onStep?: (event: StepEvent) => void,
  ): RequestHandle {
    const { subscriber, result } = this.#wait(cache, request, onStep);
    group.subscribe(subscriber);
    const cancel = () => {
      this.#giveUp(subscriber);
      if (group.over || !group.leave(subscriber) || group.wanted) return;
      this.#looking.delete(group);
      this.#dispatcher.remove(group);
      group.over = true;
      this.#forget(group);
    };
    const spent = () => Math.max(request.telling, group.tokenPasses);
    return { ...handleOf(subscriber.id, request), result, cancel, spent };
  }

  #answerFrom(
    { records, outcome }: CachedAnswer,
    request: CheckedRequest,
    onStep?: (event: StepEvent) => void,
  ): RequestHandle {
    const { subscriber, result } = this.#wait("hit", request, onStep);
    const timing = () => ({
      queue_ms: 0,
      compute_ms: 0,
      total_ms: performance.now() - subscriber.acceptedAt,
    });
    const later = setImmediate(() =>
      answer(outcome, records, subscriber, timing).then(subscriber.resolve, subscriber.reject),
    );
    const cancel = () => {
      clearImmediate(later);
      this.#giveUp(subscriber);
    };
    return { ...handleOf(subscriber.id, request), result, cancel, spent: () => request.price };
  }

  /** Someone who waits for an answer, and the promise of it; it is settled once. */
  #wait(cache: CacheState, request: CheckedRequest, onStep?: (event: StepEvent) => void) {
    const { promise, resolve, reject } = promiseWithResolvers<Answer>();
    const emitter = new StepEmitter(this.model, request, onStep, this.#turns);
    const subscriber: Subscriber = {
      ...{ id: randomUUID(), acceptedAt: performance.now(), cache, emitter },
      resolve: (result) => {
        if (!this.#open.delete(subscriber)) return;
        resolve(result);
        this.emit("finished", { outcome: "done", result });
      },
      reject: (error) => {
        if (!this.#open.delete(subscriber)) return;
        reject(error);
        this.emit("finished", { outcome: error instanceof CancelledError ? "cancelled" : "failed" });
      },
    };
    this.#open.add(subscriber);
    return { subscriber, result: promise };
  }

  #giveUp({ emitter, reject }: Subscriber): void {
    emitter.stop();
    reject(new CancelledError("cancelled"));
  }

  #finish(group: SampleGroup): void {
    const outcome = group.outcome(this.pool.provider);
    const key = this.#forget(group);
    if (key !== undefined && !outcome.hurried.includes(true)) {
      this.#cache.keep(key, group, outcome);
      const { params, records } = group;
      void this.shared?.keep({ params, records, outcome }, this.pool.provider);
    }
    group.finish(outcome, () => performance.now());
  }

  #fail(group: SampleGroup, error: Error): void {
    this.#forget(group);
    group.fail(error);
  }

  /** Forgets that others may join it; returns its key in the cache. */
  #forget(group: SampleGroup): string | undefined {
    const key = this.#keys.get(group);
    this.#keys.delete(group);
    if (key !== undefined && this.#shareable.get(key) === group) this.#shareable.delete(key);
    return key;
  }
}
