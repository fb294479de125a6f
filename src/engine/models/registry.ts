/**
 * The models of a server. The registry alone loads and unloads them: a model is loaded when a request asks
 * for it, and the least recently used one is unloaded to make room.
 */

import { EventEmitter, once } from "node:events";
import { NotFoundError, OverloadedError, UnavailableError } from "../../errors.ts";
import type { Model, ModelDescription } from "../../model/model.ts";
import type { Provider } from "../../runtime/protocol.ts";
import type { ResultCache } from "../answers/cache.ts";
import type { Engine } from "../engine.ts";
import { makeRoom } from "./room.ts";
import { type Loader, ServedModel } from "./served-model.ts";

export interface RegistryOptions {
  /** Models that workers hold at a time; at least 1. */
  maxLoaded: number;
  /** Milliseconds after a failed load in which no other is tried. */
  retryMs: number;
}

interface RegistryEvents {
  /** An engine has started; nothing has run in it. */
  engine: [Engine];
  /** A model was loaded, in so many milliseconds, and serves requests. */
  loaded: [Engine, number];
  unloaded: [ServedModel];
  "load-failed": [ServedModel, Error];
  /** A request no longer uses a model or waits for it. */
  left: [];
}

const RETRY_MS = 5000;

/** A model whose files are verified, and which waits until another one is unloaded. */
interface Claim {
  readonly model: ServedModel;
  /** `false`: nobody waits for it any more. */
  settle(granted: boolean): void;
}

/**
 * Loads models on demand; end it with `drain` or `abort`, then `close`.
 *
 * @example
 * const models = new ModelRegistry(engine, [await describeModel("proteins")], loader, { maxLoaded: 1 });
 * await models.use("proteins", signal, (engine) => engine.submit(request).result);
 */
export class ModelRegistry extends EventEmitter<RegistryEvents> {
  readonly models: readonly ServedModel[];
  /** The cache of answers, which all engines share. */
  readonly cache: ResultCache;
  /** Where the graphs of the first model run, and so those of the others. */
  readonly provider: Provider;
  readonly #first: ServedModel;
  readonly #options: RegistryOptions;
  /** Requests that may wait for one model. */
  readonly #maxWaiting: number;
  /** In order of arrival. */
  #claims: Claim[] = [];
  /** Loads and unloads in progress. */
  readonly #changes = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #arrangeIsDue = false;
  #started = false;
  #stopped = false;
  #closed = false;

  /**
   * @param first the engine of the model that requests without a name get; loaded, or about to be
   * @param others models to load on demand, with other names than the first
   * @param loader needed if there are others
   */
  constructor(
    first: Engine,
    others: readonly ModelDescription[] = [],
    readonly loader?: Loader,
    options: Partial<RegistryOptions> = {},
  ) {
    super();
    this.#first = new ServedModel(first.model);
    Object.assign(this.#first, { engine: first, state: "loaded", hasPlace: true });
    this.cache = first.cache;
    this.provider = first.pool.provider;
    this.models = [this.#first, ...others.map((description) => new ServedModel(description))];
    this.#maxWaiting = first.limits.maxQueue + first.limits.maxActive;
    this.#options = { maxLoaded: this.models.length, retryMs: RETRY_MS, ...options };
  }

  /** The engines of the loaded models. */
  get engines(): Engine[] {
    return this.models.flatMap(({ engine }) => (engine ? [engine] : []));
  }

  /** True once the first model has run. */
  get started(): boolean {
    this.#started ||= this.#first.engine?.ready ?? false;
    return this.#started;
  }

  /** True while requests are accepted: the first model has run and the server is not shutting down. */
  get accepting(): boolean {
    return this.started && !this.#stopped;
  }

  /** Return the model with this name, or the first one without a name. Throws NotFoundError. */
  find(name: string = this.#first.name): ServedModel {
    const model = this.models.find((one) => one.name === name);
    if (model) return model;
    const which =
      this.models.length > 1 ? "GET /v1/models lists those that are" : `it is ${this.#first.name}`;
    throw new NotFoundError(`the model ${name} is not served here: ${which}`);
  }

  /** Return a model with its tokenizer, which needs no workers. Rejects with UnavailableError. */
  async open(model: ServedModel): Promise<Model> {
    this.#checkAccepting();
    if ("tokenizer" in model.description) return model.description;
    model.checkFailure();
    return model.open(this.loader!).catch((error: Error) => Promise.reject(this.#failed(model, error)));
  }

  /**
   * Run `task` with the engine of a model, which stays loaded until the promise of the task settles; load it
   * first if necessary. Rejects with UnavailableError if the model cannot be loaded, with OverloadedError if
   * too many requests wait, and with CancelledError if `signal` is aborted while this one does.
   *
   * @param task `since`: the `performance.now()` from which the request waited; undefined if it did not
   */
  async use<T>(
    model: ServedModel,
    signal: AbortSignal,
    task: (engine: Engine, since: number | undefined) => Promise<T>,
  ): Promise<T> {
    this.#checkAccepting();
    let since: number | undefined;
    if (model.isOpen) model.uses++;
    else since = await this.#wait(model, signal);
    try {
      return await task(model.engine!, since);
    } finally {
      model.uses--;
      model.usedAt = performance.now();
      this.#left();
    }
  }

  /** Samples being denoised, and requests in the queues. */
  get running(): number {
    return this.models.reduce(
      (sum, { engine, queueLength }) => sum + queueLength + (engine?.activeRows ?? 0),
      0,
    );
  }

  /** Accept no more requests; resolve when every accepted one has ended. */
  async drain(): Promise<void> {
    this.#stopped = true;
    while (this.models.some(({ uses, waiting }) => uses + waiting > 0)) await once(this, "left");
    await Promise.all(this.engines.map((engine) => engine.drain()));
  }

  /** Accept no more requests and reject every accepted one with UnavailableError. */
  abort(): void {
    this.#stopped = true;
    for (const model of this.models) model.refuseAll(new UnavailableError("the server is shutting down"));
    for (const engine of this.engines) engine.abort();
  }

  /** End the workers of every model. */
  async close(): Promise<void> {
    this.#stopped = true;
    this.#closed = true;
    this.abort();
    this.#arrange();
    await Promise.all(this.#changes);
    await Promise.all(this.engines.map(({ pool }) => pool.close()));
  }

  /** Kill the workers at once, for a server that exits. */
  kill(): void {
    for (const { pool } of this.engines) pool.kill();
  }

  #checkAccepting(): void {
    if (this.accepting) return;
    throw new UnavailableError(this.#stopped ? "the server is shutting down" : "the model is still loading");
  }

  async #wait(model: ServedModel, signal: AbortSignal): Promise<number> {
    model.checkFailure();
    if (model.waiting >= this.#maxWaiting)
      throw new OverloadedError(`${model.waiting} requests wait for ${model.name} to be loaded`, 1);
    const admitted = model.wait(signal, () => this.#left());
    this.#arrangeSoon();
    return admitted;
  }

  /** A request no longer uses a model or waits for one. */
  #left(): void {
    this.emit("left");
    this.#arrangeSoon();
  }

  /** Call `#arrange` once for all that happens now. */
  #arrangeSoon(): void {
    if (this.#arrangeIsDue || this.models.length === 1) return;
    this.#arrangeIsDue = true;
    queueMicrotask(() => {
      this.#arrangeIsDue = false;
      this.#arrange();
    });
  }

  /** Load what is waited for, and unload to make room for it. */
  #arrange(): void {
    clearTimeout(this.#timer);
    for (const model of this.models)
      if (model.state === "unloaded" && model.waiting > 0) this.#track(this.#load(model));
    const isIdle = ({ model }: Claim) => this.#closed || model.waiting === 0;
    const idle = this.#claims.filter(isIdle);
    this.#claims = this.#claims.filter((claim) => !isIdle(claim));
    for (const claim of idle) claim.settle(false);
    const free = this.#options.maxLoaded - this.models.filter(({ hasPlace }) => hasPlace).length;
    for (const claim of this.#claims.splice(0, Math.max(0, free))) {
      claim.model.hasPlace = true;
      claim.settle(true);
    }
    if (!this.#closed) this.#makeRoom(this.#claims.length);
  }

  /** Unload models for `count` others, once they are idle; keep the rest open. */
  #makeRoom(count: number): void {
    const now = performance.now();
    const unloading = this.models.filter(({ state }) => state === "unloading").length;
    const loaded = this.models.filter(({ state }) => state === "loaded");
    const { closing, nextAt } = makeRoom(loaded, count - unloading, now);
    for (const model of loaded) {
      model.closing = closing.has(model);
      if (!model.closing) model.admitAll();
      else if (model.uses === 0) this.#track(this.#unload(model));
    }
    if (Number.isFinite(nextAt)) this.#timer = setTimeout(() => this.#arrange(), nextAt - now + 1);
  }

  #track(change: Promise<void>): void {
    this.#changes.add(change);
    void change.finally(() => {
      this.#changes.delete(change);
      this.#arrangeSoon();
    });
  }

  async #load(model: ServedModel): Promise<void> {
    model.state = "loading";
    let engine: Engine | undefined;
    try {
      // Damaged files are found before another model is unloaded for them.
      const opened = await model.open(this.loader!);
      const granted = await new Promise<boolean>((settle) => {
        this.#claims.push({ model, settle });
        this.#arrangeSoon();
      });
      if (!granted) {
        model.state = "unloaded";
        return;
      }
      const began = performance.now();
      engine = await this.loader!.start(opened);
      this.emit("engine", engine);
      await engine.warmUp();
      const now = performance.now();
      Object.assign(model, { engine, state: "loaded", usedAt: now, keptUntil: 2 * now - began });
      this.emit("loaded", engine, now - began);
      model.admitAll();
    } catch (error) {
      await engine?.pool.close();
      Object.assign(model, { state: "unloaded", hasPlace: false });
      model.refuseAll(this.#failed(model, error as Error));
    }
  }

  async #unload(model: ServedModel): Promise<void> {
    const { engine } = model;
    Object.assign(model, { engine: undefined, state: "unloading" });
    await engine!.pool.close();
    Object.assign(model, { state: "unloaded", closing: false, hasPlace: false });
    this.emit("unloaded", model);
  }

  #failed(model: ServedModel, error: Error): UnavailableError {
    this.emit("load-failed", model, error);
    return model.fail(error, this.#options.retryMs);
  }
}
