/**
 * The workers of one model and their shared queue of batches.
 *
 * A batch is a pure function of its rows, so a batch whose worker died goes back to the front of the queue
 * for any free worker, and nothing is lost.
 */

import { EventEmitter } from "node:events";
import { MemoryFailure, ModelFailure } from "../errors.ts";
import { HangLimit } from "./hang-limit.ts";
import type { Batch, GraphName, Graphs, Provider, WorkerOptions } from "./protocol.ts";
import { type Result, Worker, WorkerDied, type WorkerEvents } from "./worker-process.ts";

/** Workers that may die under a batch before it fails. */
const ATTEMPTS = 5;
/**
 * Milliseconds for which numbers that are not finite are blamed on the model, once a fresh worker confirmed
 * them.
 */
const MODEL_FAULT_MS = 60_000;

export interface PoolEvents extends WorkerEvents {
  /** A result holds numbers that are not finite. */
  "non-finite": [];
  /** A worker is free and the queue is empty. */
  free: [];
}

/** A batch in the queue or with a worker. */
interface QueuedBatch {
  readonly batch: Batch;
  /** Workers that may die under it. */
  readonly attempts: number;
  /** Workers that died under it. */
  deaths: number;
  /** `performance.now()` at which a result of it was not finite. */
  suspectedAt?: number;
  /** Only workers that loaded the model at this time or later may take it. */
  loadedSince: number;
  resolve(result: Result): void;
  reject(error: Error): void;
}

/**
 * Runs batches on workers, and replaces workers that die.
 *
 * @example
 * const pool = await WorkerPool.start({ graphs: model.graphs, device: "cpu", threads: 0 }, 2);
 * const { token } = await pool.run("denoise", input);
 * await pool.close();
 */
export class WorkerPool extends EventEmitter<PoolEvents> {
  readonly #queue: QueuedBatch[] = [];
  /** First batch of each graph, for `warmUp`. */
  readonly #first = new Map<GraphName, Batch>();
  /** The worker that confirmed a fault of the model: when it had loaded, and until when that counts. */
  #modelFault = { loadedAt: Number.POSITIVE_INFINITY, until: Number.NEGATIVE_INFINITY };
  #closed = false;
  /** Workers replaced so far. */
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
        // An older worker is better than none.
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

  /**
   * Start `count` workers, which take the GPUs in turn. Throws StartupError, with every worker ended, if one
   * cannot load the model.
   *
   * @param options.gpus indexes of the GPUs; default only the first one
   */
  static async start(
    { gpus = [0], ...options }: Omit<WorkerOptions, "gpu"> & { gpus?: readonly number[] | undefined },
    count = 1,
    hangLimit = new HangLimit(),
  ): Promise<WorkerPool> {
    const starts = Array.from({ length: count }, (_, i) =>
      Worker.start({ ...options, gpu: gpus[i % gpus.length] }),
    );
    const started = await Promise.allSettled(starts);
    const workers = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const failure = started.find((one) => one.status === "rejected");
    if (!failure) return new WorkerPool(workers, hangLimit);
    await Promise.all(workers.map((worker) => worker.close()));
    throw failure.reason;
  }

  /** Number of workers, those being replaced included. */
  get size(): number {
    return this.workers.length;
  }

  /** Number of workers that hold the model. */
  get healthy(): number {
    return this.workers.filter(({ loadedAt }) => loadedAt !== undefined).length;
  }

  /** Number of workers that would take a further batch at once. */
  get free(): number {
    return Math.max(0, this.workers.filter(({ isFree }) => isFree).length - this.#queue.length);
  }

  /** Ids of the live processes. */
  get pids(): number[] {
    return this.workers.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Where the graphs run. */
  get provider(): Provider {
    return this.workers[0]!.provider;
  }

  /** Why `auto` fell back to the CPU; undefined if it did not. */
  get fallback(): string | undefined {
    return this.workers[0]!.fallback;
  }

  /**
   * Run a batch. Rejects with ModelFailure if the graph fails, or if `attempts` workers died under it. A
   * result may hold numbers that are not finite if a second worker confirmed them.
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

  /**
   * Run each graph that has run once in the free workers, `denoise` in each of their sessions. Rejects with
   * ModelFailure if one fails.
   */
  async warmUp(): Promise<void> {
    const warm = async (worker: Worker) => {
      for (const batch of this.#first.values())
        await worker.run(batch, this.hangLimit.of(batch), batch.graph === "denoise");
    };
    const failed = (await Promise.allSettled(this.workers.filter(({ isFree }) => isFree).map(warm))).find(
      (one) => one.status === "rejected" && !(one.reason instanceof WorkerDied),
    );
    this.#pull();
    if (failed?.status === "rejected") throw failed.reason;
  }

  /** Kill the processes at once, for a server that exits. Pending batches stay pending. */
  kill(): void {
    for (const worker of this.workers) worker.kill();
  }

  /** End the processes and reject pending batches with ModelFailure. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#queue.splice(0)) reject(new ModelFailure("the workers are closed"));
    await Promise.all(this.workers.map((worker) => worker.close()));
  }

  /** Let free workers take batches, the longest free first. */
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
      if (isFiniteResult(result) || this.#isModelFault(queued, loadedAt)) queued.resolve(result);
      else {
        worker.restart("numbers that are not finite");
        this.#queue.unshift(queued);
      }
    } catch (error) {
      if (!(error instanceof WorkerDied)) queued.reject(error as Error);
      else if (++queued.deaths < queued.attempts) this.#queue.unshift(queued);
      else {
        const Failure = error.outOfMemory ? MemoryFailure : ModelFailure;
        queued.reject(new Failure(`the batch ended ${queued.deaths} worker processes (${error.message})`));
      }
    }
    this.#pull();
  }

  /**
   * Return true if numbers that are not finite come from the model, false if the memory of the worker may be
   * damaged.
   *
   * The first time, the batch runs once more in a worker that loaded the model after that. If its numbers are
   * not finite either, the fault is the model's. For the next minute, such numbers from that worker or a
   * younger one are accepted at once, so that a faulty model does not keep restarting workers.
   */
  #isModelFault(queued: QueuedBatch, loadedAt: number): boolean {
    this.emit("non-finite");
    const now = performance.now();
    const known = now < this.#modelFault.until;
    if (queued.suspectedAt !== undefined) {
      if (loadedAt >= queued.suspectedAt) this.#modelFault = { loadedAt, until: now + MODEL_FAULT_MS };
      return true;
    }
    if (known && loadedAt >= this.#modelFault.loadedAt) return true;
    queued.suspectedAt = now;
    queued.loadedSince = known ? this.#modelFault.loadedAt : now;
    return false;
  }
}

/** Return true if all numbers that tokens and choices depend on are finite. */
function isFiniteResult(result: Result): boolean {
  const finite = (values: Float32Array) => values.every(Number.isFinite);
  return (
    (!("logprob" in result) || finite(result.logprob)) && (!("reward" in result) || finite(result.reward))
  );
}
