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
import { type CachedGeneration, type CacheLimits, cacheKey, ResultCache } from "./answers/cache.ts";
import type { SharedCache } from "./answers/shared-cache.ts";
import { Narrator, type StepEvent } from "./answers/step-emitter.ts";
import { promiseWithResolvers } from "./deferred.ts";
import { type MaskSpan, maskSpans } from "./layout.ts";
import { mostTokenPasses, tellingPrice } from "./price.ts";
import { type GenerateRequest, type GuidanceRequest, type PreparedRequest, prepare } from "./request.ts";
import { Generation, type Subscriber } from "./sample-group.ts";
import { calibrate } from "./scheduling/calibrate.ts";
import { type BatchReport, Dispatcher, type DispatcherLimits } from "./scheduling/dispatcher.ts";
import { Turns } from "./turns.ts";

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
export interface Ticket {
  id: string;
  /** The seed in use, given or drawn. */
  seed: number;
  /** Where its canvas is masked at first. */
  spans: MaskSpan[];
  /** Rejects with CancelledError after `cancel`, with RuntimeFailure if the model fails. */
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
  kept: CachedGeneration | undefined;
  /** Token passes that telling the answer costs. */
  telling: number;
  /** Token passes that it may come to. */
  price: number;
}

/** What a ticket says of a request from the start. */
const ticketOf = (id: string, { computation, view, price }: CheckedRequest) => ({
  id,
  seed: computation.seed,
  spans: maskSpans(view.layout),
  price,
});

/** Takes requests and answers them. `ready` only after `warmUp`; end it with `drain` or `abort`. */
export class Engine extends EventEmitter<EngineEvents> {
  readonly #dispatcher: Dispatcher;
  readonly #cache: ResultCache;
  /** Running generations that an identical request may join. */
  readonly #shareable = new Map<string, Generation>();
  readonly #keys = new Map<Generation, string>();
  /** Everyone who waits for an answer, its telling included. */
  readonly #open = new Set<Subscriber>();
  /** The time that telling steps takes, shared by all of them. */
  readonly #turns = new Turns();
  /** Generations that are looked for among the answers of other servers. */
  readonly #looking = new Set<Generation>();
  #stopped = false;
  /** True once the model has run. */
  ready = false;

  constructor(
    readonly model: Model,
    readonly runtime: WorkerPool,
    readonly limits: EngineLimits,
    /** Answers that are shared with other servers; absent: none are. */
    readonly shared?: SharedCache,
  ) {
    super();
    this.#cache = new ResultCache(limits.cache);
    this.#dispatcher = new Dispatcher(runtime, model.manifest.context_length, limits);
    this.#dispatcher.on("batch", (report) => this.emit("batch", report));
    this.#dispatcher.on("step", (record) => this.emit("step", record));
    this.#dispatcher.on("done", (generation) => this.#finish(generation));
    this.#dispatcher.on("failed", (generation, error) => this.#fail(generation, error));
  }

  /** Generations that wait for a free row. */
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
    return this.#dispatcher.places.active.length;
  }

  /** Bytes of the answers that are kept, estimated. */
  get cacheBytes(): number {
    return this.#cache.bytes;
  }

  /** True while requests are taken: the model has run and the engine is not shutting down. */
  get accepting(): boolean {
    return this.ready && !this.#stopped;
  }

  /** Run every graph once in every worker, then become `ready`. Rejects with RuntimeFailure if the model does not run. */
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
    await this.runtime.warmUp();
    this.ready = true;
  }

  /** With `maxBatchTokens: "auto"`, measure how large a batch should be, while requests run. Rejects with RuntimeFailure. */
  async measureBatches(): Promise<void> {
    if (this.limits.maxBatchTokens === "auto")
      this.#dispatcher.bounds = await calibrate(this.model, this.runtime);
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
    const { computation, view } = prepared;
    // A seed that was drawn will not come again.
    const key = request.seed === undefined ? undefined : cacheKey(computation);
    const kept = key === undefined ? undefined : this.#cache.get(key);
    if (key !== undefined) this.emit("lookup", { tier: "memory", hit: kept !== undefined });
    const telling = tellingPrice(computation, isTold || view.trace);
    const price = kept ? telling : Math.max(telling, mostTokenPasses(computation, this.model.manifest));
    return { ...prepared, key, kept, telling, price };
  }

  /**
   * Start a request that was checked. Throws UnavailableError or OverloadedError at once; anything later comes through
   * the ticket. Steps are announced after this has returned.
   */
  start(request: CheckedRequest, onStep?: (event: StepEvent) => void): Ticket {
    this.#checkOpen();
    const { key, kept, deadlineMs } = request;
    if (kept) return this.#answerFrom(kept, request, onStep);
    const running = key === undefined || deadlineMs !== undefined ? undefined : this.#shareable.get(key);
    if (running) return this.#subscribe(running, "shared", request, onStep);
    this.#checkQueue();
    return this.#begin(request, onStep);
  }

  /** Check and start a request; throws what they throw. */
  submit(request: GenerateRequest, onStep?: (event: StepEvent) => void): Ticket {
    return this.start(this.check(request, onStep !== undefined), onStep);
  }

  #checkOpen(): void {
    if (!this.accepting)
      throw new UnavailableError(
        this.#stopped ? "the server is shutting down" : "the model is still loading",
      );
  }

  #checkQueue(): void {
    if (this.queueLength >= this.limits.maxQueue + this.#dispatcher.places.free)
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
    for (const generation of [...this.#looking, ...this.#dispatcher.all()]) {
      this.#looking.delete(generation);
      this.#dispatcher.remove(generation);
      this.#fail(generation, new UnavailableError("the server is shutting down"));
    }
    for (const { narrator, reject } of this.#open) {
      narrator.stop();
      reject(new UnavailableError("the server is shutting down"));
    }
  }

  #prepare(request: GenerateRequest): PreparedRequest {
    return prepare(this.model, request, (...work) => this.#dispatcher.forecastMs(...work));
  }

  #begin(request: CheckedRequest, onStep?: (event: StepEvent) => void): Ticket {
    const { computation, deadlineMs, key } = request;
    const generation = new Generation(computation, this.model, deadlineMs, performance.now());
    if (key !== undefined) {
      this.#keys.set(generation, key);
      if (deadlineMs === undefined) this.#shareable.set(key, generation);
    }
    const ticket = this.#subscribe(generation, "miss", request, onStep);
    if (key !== undefined && this.shared)
      this.#findOrRun(this.shared, generation).catch((error: Error) => this.#fail(generation, error));
    else this.#dispatcher.add(generation);
    return ticket;
  }

  /** Answers a generation with what another server computed, or else runs it. */
  async #findOrRun(shared: SharedCache, generation: Generation): Promise<void> {
    this.#looking.add(generation);
    const found = await shared.find(generation.computation, this.runtime.provider);
    // Given up meanwhile.
    if (!this.#looking.delete(generation)) return;
    this.emit("lookup", { tier: "shared", hit: found !== undefined });
    if (!found) return this.#dispatcher.add(generation);
    generation.records.push(...found.records);
    generation.firstPassAt = generation.acceptedAt;
    const key = this.#forget(generation);
    if (key !== undefined) this.#cache.keep(key, generation, found.outcome);
    generation.finish(found.outcome, () => performance.now(), "hit");
  }

  #subscribe(
    generation: Generation,
    cache: CacheState,
    request: CheckedRequest,
    onStep?: (event: StepEvent) => void,
  ): Ticket {
    const { subscriber, result } = this.#wait(cache, request, onStep);
    generation.subscribe(subscriber);
    const cancel = () => {
      this.#giveUp(subscriber);
      if (generation.over || !generation.leave(subscriber) || generation.wanted) return;
      this.#looking.delete(generation);
      this.#dispatcher.remove(generation);
      generation.over = true;
      this.#forget(generation);
    };
    const spent = () => Math.max(request.telling, generation.tokenPasses);
    return { ...ticketOf(subscriber.id, request), result, cancel, spent };
  }

  #answerFrom(
    { records, outcome }: CachedGeneration,
    request: CheckedRequest,
    onStep?: (event: StepEvent) => void,
  ): Ticket {
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
    return { ...ticketOf(subscriber.id, request), result, cancel, spent: () => request.price };
  }

  /** Someone who waits for an answer, and the promise of it; it is settled once. */
  #wait(cache: CacheState, request: CheckedRequest, onStep?: (event: StepEvent) => void) {
    const { promise, resolve, reject } = promiseWithResolvers<Answer>();
    const narrator = new Narrator(this.model, request, onStep, this.#turns);
    const subscriber: Subscriber = {
      ...{ id: randomUUID(), acceptedAt: performance.now(), cache, narrator },
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

  #giveUp({ narrator, reject }: Subscriber): void {
    narrator.stop();
    reject(new CancelledError("cancelled"));
  }

  #finish(generation: Generation): void {
    const outcome = generation.outcome(this.runtime.provider);
    const key = this.#forget(generation);
    if (key !== undefined && !outcome.hurried.includes(true)) {
      this.#cache.keep(key, generation, outcome);
      const { computation, records } = generation;
      void this.shared?.keep({ computation, records, outcome }, this.runtime.provider);
    }
    generation.finish(outcome, () => performance.now());
  }

  #fail(generation: Generation, error: Error): void {
    this.#forget(generation);
    generation.fail(error);
  }

  /** Forgets that others may join it; returns its key in the cache. */
  #forget(generation: Generation): string | undefined {
    const key = this.#keys.get(generation);
    this.#keys.delete(generation);
    if (key !== undefined && this.#shareable.get(key) === generation) this.#shareable.delete(key);
    return key;
  }
}
