/**
 * A worker as the server sees it: a process that owns ONNX Runtime, started again whenever it ends.
 *
 * ONNX Runtime lives in a process of its own because `run` blocks the thread that calls it, and because a
 * native crash must not take the sockets along. The worker keeps no work: a batch whose process ends is the
 * pool's to run again.
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

/** Wait before the n-th start in a row that fails: doubles from here. */
const BACKOFF_MS = 50;
const LONGEST_BACKOFF_MS = 5_000;
/** An idle worker is asked for a sign of life this often, and has as long to answer. */
const PING_MS = 10_000;

export interface WorkerEvents {
  /** The process ended, by itself or for a reason of ours; another is being started. */
  restart: [{ pid: number; code: number | null; signal: NodeJS.Signals | null; reason?: string }];
  /** Another process holds the model; `previous` is the id of the one that ended. */
  replaced: [{ pid: number; previous: number; milliseconds: number }];
  /** A new process could not load the graphs; it is tried again after a while. */
  "load-failed": [message: string];
}

/** The process ended while it ran a batch. */
export class WorkerDied extends Error {
  override name = "WorkerDied";
}

/** What the process works on. */
interface Running {
  id: number;
  resolve(result: Result): void;
  reject(error: Error): void;
}

/** Runs one batch at a time. */
export class Worker extends EventEmitter<WorkerEvents> {
  #process: ChildProcess | undefined;
  /** Clock time at which the process had loaded the model; undefined while it has not, or is being ended. */
  #loadedAt: number | undefined;
  #running: Running | undefined;
  #lastId = 0;
  #closing = false;
  /** Starts in a row after which no batch was answered. */
  #failures = 0;
  #watchdog: NodeJS.Timeout | undefined;
  /** Why the process is being ended. */
  #reason: string | undefined;
  /** Clock time at which it last had nothing to do. */
  freeSince = 0;
  /** Where the graphs run. */
  provider: Provider = "cpu";
  /** Why CUDA was not taken, when `auto` fell back to the CPU. */
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

  /** Clock time (performance.now) at which the process had loaded the model; undefined while none holds it. */
  get loadedAt(): number | undefined {
    return this.#loadedAt;
  }

  /** True if it holds the model and has nothing to do. */
  get isFree(): boolean {
    return this.#loadedAt !== undefined && !this.#running;
  }

  /** Process id, while there is a process. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /**
   * Run a batch on a free worker; `everywhere`, in each session that may take a part of it.
   *
   * @param limitMs milliseconds after which the batch has hung and the process is ended
   * Rejects with WorkerDied if the process ends, with ModelFailure if the graph fails or the worker is
   * closed. Throws if the worker is not free.
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

  /** End the process for a reason; another is started. */
  restart(reason: string): void {
    this.#reason ??= reason;
    this.#loadedAt = undefined;
    this.#process?.kill("SIGKILL");
  }

  /** End the process at once: for a server that ends itself. */
  kill(): void {
    this.#process?.kill("SIGKILL");
  }

  /** End the process for good; a batch that runs is rejected with ModelFailure. */
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

  /** Return what runs, which is then no longer running. */
  #take(): Running | undefined {
    const running = this.#running;
    this.#running = undefined;
    this.freeSince = performance.now();
    return running;
  }

  #post(message: ToWorker): void {
    // A failed send means that the process is gone; its exit event deals with that.
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

  /** With nothing to do: ask now and then whether the process still answers. */
  #rest(): void {
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
      // Stays attached: an error event without a listener would end the server.
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
      throw new StartupError("the worker died at once");
    lowerPriority(this.pid!);
    this.freeSince = performance.now();
    this.#loadedAt = this.freeSince;
    this.#rest();
  }

  #receive(message: FromWorker): void {
    // What a process that is being ended still says does not count.
    if (this.#loadedAt === undefined) return;
    if (message.type === "pong" && !this.#running) this.#rest();
    if (!("id" in message) || message.id !== this.#running?.id) return;
    const { resolve, reject } = this.#take()!;
    this.#failures = 0;
    this.#rest();
    if (message.type === "result") resolve(message.result);
    else reject(new ModelFailure(message.message));
  }

  /** The process has ended: give back what it ran, then start others until one holds the model. */
  async #replace(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    this.#loadedAt = undefined;
    clearTimeout(this.#watchdog);
    if (this.#closing) return;
    const reason = this.#reason ?? (code === OUT_OF_MEMORY ? "out of memory" : undefined);
    const previous = this.pid!;
    this.emit("restart", { pid: previous, code, signal, ...(reason && { reason }) });
    this.#take()?.reject(new WorkerDied(signal ?? `exit code ${code}`));
    const started = performance.now();
    while (!this.#closing) {
      if (this.#failures > 0) await sleep(Math.min(BACKOFF_MS * 2 ** this.#failures, LONGEST_BACKOFF_MS));
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
