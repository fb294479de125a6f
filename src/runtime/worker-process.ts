/**
 * The server's side of a worker: a process that owns ONNX Runtime and is replaced when it ends.
 *
 * ONNX Runtime has a process of its own because `run` blocks its thread, and because a native crash must not
 * end the server. The pool runs a batch again if its worker dies.
 */

import type { ChildProcess } from "node:child_process";
import { EventEmitter } from "node:events";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { ModelFailure, StartupError } from "../errors.ts";
import { cannotStart, forkWorker, lowerPriority } from "./fork.ts";
import { HEARTBEAT_FD, watchHeartbeat } from "./heartbeat.ts";
import {
  type Batch,
  type FromWorker,
  type GraphName,
  type Graphs,
  OUT_OF_MEMORY,
  type Provider,
  type ToWorker,
  type WorkerOptions,
} from "./protocol.ts";

export type Result = Graphs[GraphName]["result"];

/** Wait after the first start in a row that failed; doubles with each further one. */
const BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 5_000;
/** An idle worker is pinged this often, and has as long to answer. */
const PING_MS = 10_000;

export interface WorkerEvents {
  /** The process ended, by itself or for `reason`; another one is being started. */
  restart: [{ pid: number; code: number | null; signal: NodeJS.Signals | null; reason?: string }];
  /** Another process has loaded the model; `previous` is the id of the one that ended. */
  replaced: [{ pid: number; previous: number; milliseconds: number }];
  /** A new process could not load the graphs; the start is retried. */
  "load-failed": [message: string];
}

/** The process ended while running a batch. */
export class WorkerDied extends Error {
  override name = "WorkerDied";
  constructor(
    message: string,
    /** True if the worker said so. */
    readonly outOfMemory: boolean,
  ) {
    super(message);
  }
}

/** The batch that the process runs. */
interface Running {
  id: number;
  resolve(result: Result): void;
  reject(error: Error): void;
}

/** Runs one batch at a time. */
export class Worker extends EventEmitter<WorkerEvents> {
  #process: ChildProcess | undefined;
  /**
   * `performance.now()` at which the process had loaded the model; undefined before, and once it is being
   * ended.
   */
  #loadedAt: number | undefined;
  #running: Running | undefined;
  #lastId = 0;
  #closing = false;
  /** Starts in a row without a result since. */
  #failures = 0;
  #watchdog: NodeJS.Timeout | undefined;
  /** Why the server ends the process. */
  #reason: string | undefined;
  /** `performance.now()` at which it last became idle. */
  freeSince = 0;
  /** Where the graphs run. */
  provider: Provider = "cpu";
  /** Why `auto` fell back to the CPU; undefined if it did not. */
  fallback: string | undefined;

  private constructor(readonly options: WorkerOptions) {
    super();
  }

  /** Start a process and load the graphs. Throws StartupError if they cannot be loaded. */
  static async start(options: WorkerOptions): Promise<Worker> {
    const worker = new Worker(options);
    await worker.#launch();
    return worker;
  }

  /** `performance.now()` at which the process had loaded the model; undefined while no process holds it. */
  get loadedAt(): number | undefined {
    return this.#loadedAt;
  }

  /** True if it holds the model and runs no batch. */
  get isFree(): boolean {
    return this.#loadedAt !== undefined && !this.#running;
  }

  /** Process id; undefined while there is no process. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /**
   * Run a batch on a free worker. Rejects with WorkerDied if the process ends, with ModelFailure if the graph
   * fails or the worker is closed. Throws if the worker is not free.
   *
   * @param limitMs milliseconds after which the batch has hung and the process is ended
   * @param everywhere run the batch whole in every session of the worker
   */
  run(batch: Batch, limitMs: number, everywhere = false): Promise<Result> {
    if (!this.isFree) throw new Error("the worker is not free");
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.#running = { id, resolve, reject };
      this.#post({ type: "run", id, batch, everywhere });
      this.#expectAnswer(limitMs);
    });
  }

  /** End the process and start another one. */
  restart(reason: string): void {
    this.#reason ??= reason;
    this.#loadedAt = undefined;
    this.#process?.kill("SIGKILL");
  }

  /** Kill the process at once, for a server that exits. */
  kill(): void {
    this.#process?.kill("SIGKILL");
  }

  /** End the process for good and reject its batch with ModelFailure. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#loadedAt = undefined;
    clearTimeout(this.#watchdog);
    this.#take()?.reject(new ModelFailure("the worker is closed"));
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  /** Remove and return the running batch. */
  #take(): Running | undefined {
    const running = this.#running;
    this.#running = undefined;
    this.freeSince = performance.now();
    return running;
  }

  #post(message: ToWorker): void {
    // A failed send means that the process is gone, which its exit event handles.
    if (this.#process?.connected) this.#process.send(message, () => {});
  }

  /** End the process unless it answers in time. */
  #expectAnswer(milliseconds: number): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(
      () => this.restart(`no answer for ${Math.round(milliseconds)} ms`),
      milliseconds,
    );
    this.#watchdog.unref();
  }

  /** Ping the idle process from time to time. */
  #idle(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (!this.isFree) return;
      this.#post({ type: "ping" });
      this.#expectAnswer(PING_MS);
    }, PING_MS);
    this.#watchdog.unref();
  }

  async #launch(): Promise<void> {
    const child = forkWorker();
    this.#process = child;
    this.#reason = undefined;
    const loading = new Promise<void>((resolve, reject) => {
      // Stays attached, since an error event without a listener would end the server.
      child.on("error", (error) => reject(cannotStart(error)));
      child.once("exit", (code, signal) =>
        reject(
          new StartupError(`the worker died while loading the model (${signal ?? `exit code ${code}`})`),
        ),
      );
      child.once("message", (message: FromWorker) => {
        if (message.type === "load-failed") return reject(new StartupError(message.message));
        if (message.type !== "loaded") return;
        this.provider = message.provider;
        this.fallback = message.fallback;
        resolve();
      });
    });
    const beats = child.stdio[HEARTBEAT_FD] as Readable | null | undefined;
    if (beats)
      child.once(
        "exit",
        watchHeartbeat(beats, () => {
          if (child === this.#process) this.restart("no sign of life");
        }),
      );
    this.#post({ type: "load", options: this.options });
    try {
      await loading;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    child.on("message", (message: FromWorker) => this.#receive(message));
    child.on("exit", (code, signal) => void this.#replace(code, signal));
    if (child.exitCode !== null || child.signalCode !== null)
      throw new StartupError("the worker died right after loading the model");
    lowerPriority(this.pid!);
    this.freeSince = performance.now();
    this.#loadedAt = this.freeSince;
    this.#idle();
  }

  #receive(message: FromWorker): void {
    // Ignore messages of a process that is being ended.
    if (this.#loadedAt === undefined) return;
    if (message.type === "pong" && !this.#running) this.#idle();
    if (!("id" in message) || message.id !== this.#running?.id) return;
    const { resolve, reject } = this.#take()!;
    this.#failures = 0;
    this.#idle();
    if (message.type === "result") resolve(message.result);
    else reject(new ModelFailure(message.message));
  }

  /** After the process has ended: reject its batch, then start processes until one holds the model. */
  async #replace(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    this.#loadedAt = undefined;
    clearTimeout(this.#watchdog);
    if (this.#closing) return;
    const reason = this.#reason ?? (code === OUT_OF_MEMORY ? "out of memory" : undefined);
    const previous = this.pid!;
    this.emit("restart", { pid: previous, code, signal, ...(reason && { reason }) });
    this.#take()?.reject(new WorkerDied(signal ?? `exit code ${code}`, code === OUT_OF_MEMORY));
    const started = performance.now();
    while (!this.#closing) {
      if (this.#failures > 0) await sleep(Math.min(BACKOFF_MS * 2 ** this.#failures, MAX_BACKOFF_MS));
      this.#failures++;
      if (this.#closing) return;
      try {
        await this.#launch();
        break;
      } catch (error) {
        this.emit("load-failed", (error as Error).message);
      }
    }
    if (this.#closing) return void this.#process?.kill("SIGKILL");
    this.emit("replaced", { pid: this.pid!, previous, milliseconds: performance.now() - started });
  }
}
