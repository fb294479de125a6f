/** Several runtime processes of one model, side by side. */

import { EventEmitter } from "node:events";
import type { GraphName, Graphs, Provider, RuntimeOptions } from "./protocol.ts";
import { Runtime, type RuntimeEvents } from "./runtime.ts";

/** Passes go to the process that has the fewest, of those that hold the model. */
export class RuntimePool extends EventEmitter<RuntimeEvents> {
  readonly #load: Map<Runtime, number>;
  /** The first pass of each graph. */
  readonly #known = new Map<GraphName, Graphs[GraphName]["batch"]>();

  private constructor(runtimes: readonly Runtime[]) {
    super();
    this.#load = new Map(runtimes.map((runtime) => [runtime, 0]));
    for (const runtime of runtimes) {
      runtime.on("restart", (end) => this.emit("restart", end));
      runtime.on("load-failed", (message) => this.emit("load-failed", message));
      runtime.on("replaced", (start) => this.emit("replaced", start));
    }
  }

  /** Starts `count` processes. Throws StartupError if the model cannot be loaded; none is left then. */
  static async start(options: RuntimeOptions, count = 1): Promise<RuntimePool> {
    const started = await Promise.allSettled(Array.from({ length: count }, () => Runtime.start(options)));
    const runtimes = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const failure = started.find((one) => one.status === "rejected");
    if (!failure) return new RuntimePool(runtimes);
    await Promise.all(runtimes.map((runtime) => runtime.close()));
    throw failure.reason;
  }

  /** How many passes can run at once. */
  get size(): number {
    return this.#load.size;
  }

  /** True while any of the processes holds the model. */
  get loaded(): boolean {
    return [...this.#load.keys()].some((runtime) => runtime.loaded);
  }

  /** Process ids, of those that live. */
  get pids(): number[] {
    return [...this.#load.keys()].flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Where the graphs run. */
  get provider(): Provider {
    return this.#first.provider;
  }

  /** Why CUDA was not taken, when `auto` fell back to the CPU. */
  get fallback(): string | undefined {
    return this.#first.fallback;
  }

  get #first(): Runtime {
    return this.#load.keys().next().value!;
  }

  /** Runs one pass of a graph. Rejects with RuntimeFailure if it fails or `attempts` processes ended under it. */
  async run<G extends GraphName>(
    graph: G,
    batch: Graphs[G]["batch"],
    attempts?: number,
  ): Promise<Graphs[G]["result"]> {
    if (!this.#known.has(graph)) this.#known.set(graph, batch);
    const all = [...this.#load];
    const loaded = all.filter(([{ loaded }]) => loaded);
    const [runtime] = (loaded.length > 0 ? loaded : all).reduce((least, one) =>
      one[1] < least[1] ? one : least,
    );
    // Last in order: of processes that have as many, the next goes to the one that has had its own the longest.
    const load = this.#load.get(runtime)! + 1;
    this.#load.delete(runtime);
    this.#load.set(runtime, load);
    try {
      return await runtime.run(graph, batch, attempts);
    } finally {
      this.#load.set(runtime, this.#load.get(runtime)! - 1);
    }
  }

  /** Runs the graphs that have run, in every session of every process: the first pass of a graph is the slowest. Rejects with RuntimeFailure. */
  async warmUp(): Promise<void> {
    const runtimes = [...this.#load.keys()];
    const passes = [...this.#known];
    await Promise.all(
      runtimes.flatMap((runtime) => passes.map((pass) => runtime.run(...pass, undefined, true))),
    );
  }

  /** Ends the processes at once, without a word to those who wait. */
  kill(): void {
    for (const runtime of this.#load.keys()) runtime.kill();
  }

  /** Ends the processes; passes in flight are rejected. */
  async close(): Promise<void> {
    await Promise.all([...this.#load.keys()].map((runtime) => runtime.close()));
  }
}
