/**
 * The workers of one model, and the one queue of batches that they take from.
 *
 * A batch is a pure function of its rows, so a batch whose worker died goes back to the front of the queue,
 * and whichever worker is free takes it: nothing is lost. A worker that is being replaced has no batch.
 */

import { EventEmitter } from "node:events";
import { ModelFailure } from "../errors.ts";
import { HangLimit } from "./hang-limit.ts";
import type { Batch, GraphName, Graphs, Provider, WorkerOptions } from "./protocol.ts";
import { type Result, Worker, WorkerDied, type WorkerEvents } from "./worker-process.ts";

/** How many processes may end under a batch before it is given up. */
const ATTEMPTS = 5;
/** How long numbers that are not finite are taken for the model's own once a fresh worker gave them too. */
const OWN_FAULT_MS = 60_000;

export interface PoolEvents extends WorkerEvents {
  /** A batch came back with numbers that are not finite. */
  "non-finite": [];
  /** A worker is free and the queue is empty. */
  free: [];
}

/** A batch in the queue or with a worker. */
interface QueuedBatch {
  readonly batch: Batch;
  /** Processes that may end under it. */
  readonly attempts: number;
  /** Processes that have ended under it. */
  deaths: number;
  /** Clock time at which its numbers were not finite; undefined if they never were. */
  suspectedAt?: number;
  /** Only a worker that loaded the model since this clock time may take it. */
  loadedSince: number;
  resolve(result: Result): void;
  reject(error: Error): void;
}

/** Runs batches on workers that it keeps alive. */
export class WorkerPool extends EventEmitter<PoolEvents> {
  readonly #queue: QueuedBatch[] = [];
  /** The first batch of each graph. */
  readonly #first = new Map<GraphName, Batch>();
  /** Of a fresh worker whose numbers were not finite either: when it had loaded, and until when it counts. */
  #ownFault = { loadedAt: Number.POSITIVE_INFINITY, until: Number.NEGATIVE_INFINITY };
  #closed = false;
  /** Processes that were replaced so far. */
  restarts = 0;

  private constructor(
    readonly workers: readonly Worker[],
    readonly hangLimit: HangLimit,
  ) {
    super();
    for (const worker of workers) {
      worker.on("restart", (end) => {
        this.restarts++;
        this.emit("restart", end);
      });
      worker.on("load-failed", (message) => {
        // Better an older worker than none.
        for (const queued of this.#queue) queued.loadedSince = Number.NEGATIVE_INFINITY;
        this.#pull();
        this.emit("load-failed", message);
      });
      worker.on("replaced", (start) => {
        this.#pull();
        this.emit("replaced", start);
      });
    }
  }

  /** Start `count` workers. Throws StartupError if the model cannot be loaded; none is left then. */
  static async start(options: WorkerOptions, count = 1, hangLimit = new HangLimit()): Promise<WorkerPool> {
    const started = await Promise.allSettled(Array.from({ length: count }, () => Worker.start(options)));
    const workers = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const failure = started.find((one) => one.status === "rejected");
    if (!failure) return new WorkerPool(workers, hangLimit);
    await Promise.all(workers.map((worker) => worker.close()));
    throw failure.reason;
  }

  /** How many workers there are to be. */
  get size(): number {
    return this.workers.length;
  }

  /** How many workers hold the model. */
  get healthy(): number {
    return this.workers.filter(({ loadedAt }) => loadedAt !== undefined).length;
  }

  /** How many workers would take a batch at once that came now. */
  get free(): number {
    return Math.max(0, this.workers.filter(({ isFree }) => isFree).length - this.#queue.length);
  }

  /** Process ids, of those that live. */
  get pids(): number[] {
    return this.workers.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Where the graphs run. */
  get provider(): Provider {
    return this.workers[0]!.provider;
  }

  /** Why CUDA was not taken, when `auto` fell back to the CPU. */
  get fallback(): string | undefined {
    return this.workers[0]!.fallback;
  }

  /**
   * Run a batch of a graph. Rejects with ModelFailure if the graph fails, or if processes ended under it
   * `attempts` times. Numbers that are not finite are part of a result once a second worker gave them.
   */
  run<G extends GraphName>(
    graph: G,
    input: Graphs[G]["input"],
    attempts = ATTEMPTS,
  ): Promise<Graphs[G]["result"]> {
    if (this.#closed) return Promise.reject(new ModelFailure("the workers are closed"));
    const batch = { graph, input } as Batch;
    if (!this.#first.has(graph)) this.#first.set(graph, batch);
    return new Promise((resolve, reject) => {
      this.#queue.push({
        batch,
        attempts,
        deaths: 0,
        loadedSince: Number.NEGATIVE_INFINITY,
        resolve,
        reject,
      });
      this.#pull();
    });
  }

  /** Run each graph once in every session of the free workers. Rejects with ModelFailure if one fails. */
  async warmUp(): Promise<void> {
    const warm = async (worker: Worker) => {
      for (const batch of this.#first.values()) await worker.run(batch, this.hangLimit.of(batch), true);
    };
    const failed = (await Promise.allSettled(this.workers.filter(({ isFree }) => isFree).map(warm))).find(
      (one) => one.status === "rejected" && !(one.reason instanceof WorkerDied),
    );
    this.#pull();
    if (failed?.status === "rejected") throw failed.reason;
  }

  /** End the processes at once, without a word to those who wait. */
  kill(): void {
    for (const worker of this.workers) worker.kill();
  }

  /** End the processes; batches that wait or run are rejected with ModelFailure. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#queue.splice(0)) reject(new ModelFailure("the workers are closed"));
    await Promise.all(this.workers.map((worker) => worker.close()));
  }

  /** Let free workers take batches, the one that has been free the longest first. */
  #pull(): void {
    const free = this.workers.filter(({ isFree }) => isFree);
    for (const worker of free.toSorted((a, b) => a.freeSince - b.freeSince)) {
      const index = this.#queue.findIndex(({ loadedSince }) => worker.loadedAt! >= loadedSince);
      const [queued] = index < 0 ? [] : this.#queue.splice(index, 1);
      if (queued) void this.#runOn(worker, queued);
    }
    if (this.free > 0) this.emit("free");
  }

  async #runOn(worker: Worker, queued: QueuedBatch): Promise<void> {
    const { batch } = queued;
    const loadedAt = worker.loadedAt!;
    try {
      const result = await worker.run(batch, this.hangLimit.of(batch));
      this.hangLimit.observe(batch, result.milliseconds);
      if (isFiniteResult(result) || this.#isAnswer(queued, loadedAt)) queued.resolve(result);
      else {
        worker.restart("numbers that are not finite");
        this.#queue.unshift(queued);
      }
    } catch (error) {
      if (!(error instanceof WorkerDied)) queued.reject(error as Error);
      else if (++queued.deaths < queued.attempts) this.#queue.unshift(queued);
      else queued.reject(new ModelFailure(`the batch ended ${queued.deaths} workers (${error.message})`));
    }
    this.#pull();
  }

  /**
   * Decide whether numbers that are not finite are the answer to a batch, or those of a worker whose memory
   * is damaged.
   *
   * The first time the batch is to be run once more, by a worker that loaded the model after that; if its
   * numbers are not finite either, the fault is the model's own. For a minute from then on the word of that
   * worker, and of those that loaded later, is taken at once, so that such a model does not keep workers
   * restarting.
   */
  #isAnswer(queued: QueuedBatch, loadedAt: number): boolean {
    this.emit("non-finite");
    const now = performance.now();
    const known = now < this.#ownFault.until;
    if (queued.suspectedAt !== undefined) {
      if (loadedAt >= queued.suspectedAt) this.#ownFault = { loadedAt, until: now + OWN_FAULT_MS };
      return true;
    }
    if (known && loadedAt >= this.#ownFault.loadedAt) return true;
    queued.suspectedAt = now;
    queued.loadedSince = known ? this.#ownFault.loadedAt : now;
    return false;
  }
}

/** Return whether the numbers that tokens and choices depend on are finite. */
function isFiniteResult(result: Result): boolean {
  const finite = (values: Float32Array) => values.every(Number.isFinite);
  return (
    (!("logprob" in result) || finite(result.logprob)) && (!("reward" in result) || finite(result.reward))
  );
}
