/** One model of a server: whether it is loaded, who uses it and who waits for it. */

import { CancelledError, ModelFailure, StartupError, UnavailableError } from "../../errors.ts";
import type { Model, ModelDescription } from "../../model/model.ts";
import type { Engine } from "../engine.ts";

/** How models are loaded. */
export interface Loader {
  /** Verify the files and read the tokenizer. Rejects with StartupError. */
  open(description: ModelDescription): Promise<Model>;
  /** Start the workers; nothing has run in the engine. Rejects with StartupError. */
  start(model: Model): Promise<Engine>;
}

/** A request that waits until its model is loaded. */
export interface Waiter {
  /** `performance.now()` at which it came. */
  readonly since: number;
  admit(): void;
  refuse(error: Error): void;
}

/** State of one model. The registry changes it. */
export class ServedModel {
  /** What its manifest says; the opened model, tokenizer included, once it was opened. */
  description: ModelDescription | Model;
  /** The engine, while workers hold the model. */
  engine: Engine | undefined;
  state: "unloaded" | "loading" | "loaded" | "unloading" = "unloaded";
  /** True while its workers take memory, also before they hold the model and while they end. */
  hasPlace = false;
  /** True while further requests wait, so that it can be unloaded. */
  closing = false;
  /** Requests that use the engine. */
  uses = 0;
  /** `performance.now()` of the last use. */
  usedAt = Number.NEGATIVE_INFINITY;
  /** `performance.now()` until which it stays loaded: a load must be worth its time. */
  keptUntil = Number.NEGATIVE_INFINITY;
  /** Why the last load failed, and the `performance.now()` until which no other is tried. */
  #failure: { error: UnavailableError; until: number } | undefined;
  #opening: Promise<Model> | undefined;
  readonly #waiting = new Set<Waiter>();

  constructor(description: ModelDescription) {
    this.description = description;
  }

  get name(): string {
    return this.description.manifest.name;
  }

  /** True if a request can use the engine at once. */
  get isOpen(): boolean {
    return this.state === "loaded" && !this.closing;
  }

  /** Number of requests that wait for a load. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** Requests in the queue: those that wait for a load, and the groups that wait in the engine. */
  get queueLength(): number {
    return this.waiting + (this.engine?.queueLength ?? 0);
  }

  /** Milliseconds that the oldest of them has waited; 0 for an empty queue. */
  get queueAgeMs(): number {
    const [first] = this.#waiting;
    return Math.max(this.engine?.queueAgeMs ?? 0, first ? performance.now() - first.since : 0);
  }

  /** Read and verify its files, once for all who ask at the same time. Rejects with StartupError. */
  open(loader: Loader): Promise<Model> {
    const read = async () => {
      const opened = await loader.open(this.description);
      const { name } = opened.manifest;
      if (name !== this.name)
        throw new StartupError(`the folder holds ${name} now: restart the server to serve it`);
      this.description = opened;
      return opened;
    };
    this.#opening ??= read().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  /** Remember for `retryMs` why it cannot be loaded; return the error for the requests. */
  fail(error: Error, retryMs: number): UnavailableError {
    const isKnown = error instanceof StartupError || error instanceof ModelFailure;
    // The log has the paths.
    const reason = isKnown ? error.message.replaceAll(`${this.description.folder}/`, "") : "see the log";
    const message = `${this.name} cannot be loaded: ${reason}`;
    const unavailable = new UnavailableError(message, Math.max(1, Math.ceil(retryMs / 1000)));
    this.#failure = { error: unavailable, until: performance.now() + retryMs };
    return unavailable;
  }

  /** Throw the error of the last load while no other is tried. */
  checkFailure(): void {
    if (this.#failure && performance.now() < this.#failure.until) throw this.#failure.error;
  }

  /**
   * Wait until the model is loaded, or is no longer to be unloaded; the request then counts as a use.
   * Resolves with the `performance.now()` of this call. Rejects with CancelledError once `signal` is aborted,
   * and with the reason if the load fails. `left` is called when it no longer waits.
   */
  wait(signal: AbortSignal, left: () => void): Promise<number> {
    const since = performance.now();
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        if (!this.#waiting.delete(waiter)) return;
        signal.removeEventListener("abort", cancel);
        settle();
        left();
      };
      const waiter: Waiter = {
        since,
        admit: () =>
          end(() => {
            this.uses++;
            resolve(since);
          }),
        refuse: (error) => end(() => reject(error)),
      };
      const cancel = () => waiter.refuse(new CancelledError("cancelled"));
      this.#waiting.add(waiter);
      signal.addEventListener("abort", cancel);
      if (signal.aborted) cancel();
    });
  }

  /** Let every waiting request use the engine, in order of arrival. */
  admitAll(): void {
    for (const waiter of this.#waiting) waiter.admit();
  }

  /** Reject every waiting request. */
  refuseAll(error: Error): void {
    for (const waiter of this.#waiting) waiter.refuse(error);
  }
}
