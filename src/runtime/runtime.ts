/**
 * The supervisor of a runtime process.
 *
 * ONNX Runtime lives in a child process because `run` blocks the thread that calls it, and because
 * a native crash must not take the sockets along. A pass is a pure function of its batch, so when
 * the child dies, another is started and the pass in flight is run again: nothing is lost.
 */

import type { ChildProcess } from "node:child_process";
import { EventEmitter } from "node:events";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure, StartupError } from "../errors.ts";
import { cannotStart, forkWorker, lowerPriority } from "./fork.ts";
import { HEARTBEAT_FD, watchHeartbeat } from "./heartbeat.ts";
import { hasOnlyNumbers, type Pass } from "./pass.ts";
import { Passes } from "./passes.ts";
import {
  type Call,
  type FromRuntime,
  type GraphName,
  type Graphs,
  OUT_OF_MEMORY,
  type Provider,
  type RuntimeOptions,
  type ToRuntime,
} from "./protocol.ts";

/** How often a pass is tried before it is given up: one that ends every process is at fault itself. */
const ATTEMPTS = 5;
/** Wait before the n-th restart in a row: doubles from here. */
const BACKOFF_MS = 50;
const LONGEST_BACKOFF_MS = 5_000;
/** A pass that takes so many times what it should has hung, and so has a process that does not answer for so long. */
const HUNG_FACTOR = 30;
const HUNG_MS = 10_000;
/** What a pass may take as long as none has been timed: graphs are prepared in the first. */
const FIRST_PASS_MS = 300_000;
const NOT_FINITE = "numbers that are not finite";
/** How long numbers that are not finite count as the model's own once a fresh process gave them too. */
const OWN_FAULT_MS = 60_000;

export interface RuntimeEvents {
  /** The process died, or was ended for a reason, and another takes its place. */
  restart: [{ pid: number; code: number | null; signal: NodeJS.Signals | null; reason?: string }];
  /** That other one holds the model; `previous` is the id of the one that died. */
  replaced: [{ pid: number; previous: number; milliseconds: number }];
  /** A new process could not load the graphs; it is tried again. */
  "load-failed": [string];
}

/** A runtime process that is kept alive. Passes run one at a time, in order. */
export class Runtime extends EventEmitter<RuntimeEvents> {
  #child: ChildProcess | undefined;
  #loaded = false;
  #closing = false;
  readonly #passes = new Passes();
  #failures = 0;
  /** Milliseconds per padded token of each graph, the slowest so far. */
  readonly #msPerToken = new Map<GraphName, number>();
  #watchdog: NodeJS.Timeout | undefined;
  /** A pass that has gone well: what a process is tried with whose numbers are not finite. */
  #known: Call | undefined;
  /** Why the process is being ended. */
  #reason: string | undefined;
  /** Clock time until which numbers that are not finite count as the model's own. */
  #ownFaultUntil = Number.NEGATIVE_INFINITY;
  /** Where the graphs run. */
  provider: Provider = "cpu";
  /** Why CUDA was not taken, when `auto` fell back to the CPU. */
  fallback: string | undefined;

  private constructor(readonly options: RuntimeOptions) {
    super();
  }

  /** Starts a process and loads the graphs. Throws StartupError if it cannot be loaded. */
  static async start(options: RuntimeOptions): Promise<Runtime> {
    const runtime = new Runtime(options);
    await runtime.#launch();
    return runtime;
  }

  /** True while a process holds the model; false while one is being replaced. */
  get loaded(): boolean {
    return this.#loaded;
  }

  /** Process id of the runtime process, while there is one. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /**
   * Runs one pass of a graph; `everywhere`, in each session that may take a part of a call. Rejects with RuntimeFailure if it
   * fails or `attempts` processes ended under it.
   */
  run<G extends GraphName>(
    graph: G,
    batch: Graphs[G]["batch"],
    attempts = ATTEMPTS,
    everywhere = false,
  ): Promise<Graphs[G]["result"]> {
    if (this.#closing) return Promise.reject(new RuntimeFailure("the runtime is closed"));
    return new Promise((resolve, reject) => {
      const call = { graph, batch } as Call;
      this.#passes.add({ call, attempts: 0, most: attempts, doubted: false, everywhere, resolve, reject });
      if (!this.#loaded) return;
      if (this.#passes.size === 1) this.#next();
      else this.#send();
    });
  }

  /** Ends the process; passes in flight are rejected. */
  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#watchdog);
    for (const pass of this.#passes.clear()) pass.reject(new RuntimeFailure("the runtime is closed"));
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  /** Ends the process at once: for a server that ends itself. */
  kill(): void {
    this.#child?.kill("SIGKILL");
  }

  #post(message: ToRuntime): void {
    // A failed send means that the process is gone; its exit event deals with that. One that never was has no channel.
    if (this.#child?.connected) this.#child.send(message, () => {});
  }

  /** Sends what the process may have; one that is being ended takes nothing more. */
  #send(): void {
    if (this.#reason !== undefined) return;
    this.#passes.send(({ id, call, everywhere }) => this.#post({ type: "run", id, call, everywhere }));
  }

  /** The first of the passes has its turn. */
  #next(): void {
    if (this.#reason !== undefined) return;
    const pass = this.#passes.first;
    if (pass) {
      pass.attempts++;
      this.#send();
      this.#expectAnswer(this.#patience(pass.call));
    } else this.#rest();
  }

  /** Milliseconds after which a pass has hung. */
  #patience({ graph, batch }: Call): number {
    const known = this.#msPerToken.get(graph);
    return known === undefined
      ? FIRST_PASS_MS
      : Math.max(HUNG_MS, HUNG_FACTOR * known * batch.rows * batch.padded);
  }

  /** Ends the process unless it answers in time; its exit is dealt with like any other. */
  #expectAnswer(milliseconds: number): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(
      () => this.#end(`no answer for ${Math.round(milliseconds)} ms`),
      milliseconds,
    );
    this.#watchdog.unref();
  }

  /** Ends the process for a reason. */
  #end(reason: string): void {
    this.#reason = reason;
    this.#child?.kill("SIGKILL");
  }

  /** With nothing to do: asks now and then whether the process still answers. */
  #rest(): void {
    clearTimeout(this.#watchdog);
    if (this.#closing) return;
    this.#watchdog = setTimeout(() => {
      if (!this.#loaded || this.#passes.size > 0) return;
      this.#post({ type: "ping" });
      this.#expectAnswer(HUNG_MS);
    }, HUNG_MS);
    this.#watchdog.unref();
  }

  async #launch(): Promise<void> {
    const child = forkWorker();
    this.#child = child;
    this.#reason = undefined;
    const loading = new Promise<void>((resolve, reject) => {
      // Stays attached: an error event without a listener would end the server.
      child.on("error", (error) => reject(cannotStart(error)));
      child.once("exit", (code, signal) =>
        reject(
          new StartupError(
            `the runtime process died while loading the model (${signal ?? `exit code ${code}`})`,
          ),
        ),
      );
      child.once("message", (message: FromRuntime) => {
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
        watchHeartbeat(beats, () => this.#end("no sign of life")),
      );
    this.#post({ type: "load", options: this.options });
    try {
      await loading;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
    child.on("message", (message: FromRuntime) => {
      // What a dead one had still said: its passes are run again.
      if (this.#loaded && child === this.#child) this.#receive(message);
    });
    child.on("exit", (code, signal) => void this.#replace(code, signal));
    if (child.exitCode !== null || child.signalCode !== null)
      throw new StartupError("the runtime process died at once");
    lowerPriority(this.pid!);
    this.#loaded = true;
    this.#rest();
  }

  #receive(message: FromRuntime): void {
    if (message.type === "pong" && this.#passes.size === 0) this.#rest();
    const pass = this.#passes.first;
    if (!pass || !("id" in message) || message.id !== pass.id) return;
    if (message.type === "result" && !pass.isTrial && !hasOnlyNumbers(message.result)) {
      if (this.#doubts(pass)) return;
    } else if (message.type === "result") this.#known ??= pass.call;
    this.#failures = 0;
    this.#passes.shift();
    if (message.type === "result") {
      const { graph, batch } = pass.call;
      const perToken = message.result.milliseconds / (batch.rows * batch.padded);
      this.#msPerToken.set(graph, Math.max(perToken, this.#msPerToken.get(graph) ?? 0));
      pass.resolve(message.result);
    } else pass.reject(new RuntimeFailure(message.message));
    this.#next();
  }

  /**
   * Numbers that are not finite may be those of this model for this batch, or of a process whose memory is damaged. Returns
   * true if that is not known yet, or the process is to blame; the pass is run again then.
   */
  #doubts(pass: Pass): boolean {
    if (this.#known && pass.soundIn !== this.#child) {
      this.#tryKnown(this.#known, pass);
      return true;
    }
    // Damage may lie where only this pass comes: a fresh process tells, now and then.
    const now = performance.now();
    if (pass.doubted) this.#ownFaultUntil = now + OWN_FAULT_MS;
    if (now < this.#ownFaultUntil) return false;
    pass.doubted = true;
    this.#end(NOT_FINITE);
    return true;
  }

  /** Runs a pass that has gone well before; the process is ended if it does not now. */
  #tryKnown(call: Call, suspect: Pass): void {
    const child = this.#child;
    const resolve = (result: Graphs[GraphName]["result"]) => {
      if (hasOnlyNumbers(result)) suspect.soundIn = child;
      else this.#end(NOT_FINITE);
    };
    suspect.attempts--;
    const trial = { call, attempts: 0, most: 1, doubted: false, isTrial: true, everywhere: true };
    this.#passes.insert({ ...trial, resolve, reject() {} });
    // What was sent before it is answered before it; those answers are of passes whose turn it is not.
    this.#passes.unsend();
    this.#next();
  }

  async #replace(code: number | null, signal: NodeJS.Signals | null): Promise<void> {
    this.#loaded = false;
    this.#passes.unsend();
    clearTimeout(this.#watchdog);
    if (this.#closing) return;
    const reason = this.#reason ?? (code === OUT_OF_MEMORY ? "out of memory" : undefined);
    this.#reason = undefined;
    const previous = this.pid!;
    this.emit("restart", { pid: previous, code, signal, ...(reason && { reason }) });
    const started = performance.now();
    const pass = this.#passes.first;
    if (pass && pass.attempts >= pass.most) {
      this.#passes.shift();
      const end = signal ?? `exit code ${code}`;
      pass.reject(new RuntimeFailure(`the pass ended ${pass.attempts} runtime processes (${end})`));
    }
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
    if (this.#closing) return void this.#child?.kill("SIGKILL");
    this.emit("replaced", { pid: this.pid!, previous, milliseconds: performance.now() - started });
    if (this.#passes.size > 0) this.#next();
  }
}
