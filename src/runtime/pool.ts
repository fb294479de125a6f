/** The runtime processes of one model. */

import { EventEmitter } from "node:events";
import type { GraphName, Graphs, Provider, RuntimeOptions } from "./protocol.ts";
import type { RuntimeEvents } from "./runtime.ts";
import { Team } from "./team.ts";

/** Over how many further processes the rows of a call are divided. */
export interface Split {
  parts: number;
  /** Of each of these processes. */
  threads: number;
}

/**
 * Processes that take whole calls, and others that take parts of one. Parts wait for each other once a call, where the threads of
 * one process wait for each other at every operator; a call that cannot be divided is quicker on all threads.
 */
export class RuntimePool extends EventEmitter<RuntimeEvents> {
  /** The first pass of each graph. */
  readonly #known = new Map<GraphName, Graphs[GraphName]["batch"]>();

  private constructor(
    readonly whole: Team,
    readonly divided: Team | undefined,
  ) {
    super();
    for (const runtime of this.#all) {
      runtime.on("restart", (end) => this.emit("restart", end));
      runtime.on("load-failed", (message) => this.emit("load-failed", message));
      runtime.on("replaced", (start) => this.emit("replaced", start));
    }
  }

  /**
   * Starts `count` processes for whole calls, and, on the CPU, those of the split. Throws StartupError if the model cannot be
   * loaded; none is left then.
   */
  static async start(options: RuntimeOptions, count = 1, split?: Split): Promise<RuntimePool> {
    const whole = await Team.start(options, count);
    if (!split || whole.runtimes[0]!.provider !== "cpu") return new RuntimePool(whole, undefined);
    try {
      const divided = await Team.start({ ...options, device: "cpu", threads: split.threads }, split.parts);
      return new RuntimePool(whole, divided);
    } catch (error) {
      await Promise.all(whole.runtimes.map((runtime) => runtime.close()));
      throw error;
    }
  }

  get #all() {
    return [...this.whole.runtimes, ...(this.divided?.runtimes ?? [])];
  }

  /** How many calls can run at once. */
  get size(): number {
    return this.whole.runtimes.length;
  }

  /** Into how many parts a call is best divided. */
  get parts(): number {
    return this.divided?.runtimes.length ?? 1;
  }

  /** True while any of the processes holds the model. */
  get loaded(): boolean {
    return this.#all.some((runtime) => runtime.loaded);
  }

  /** Process ids, of those that live. */
  get pids(): number[] {
    return this.#all.flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Where the graphs run. */
  get provider(): Provider {
    return this.whole.runtimes[0]!.provider;
  }

  /** Why CUDA was not taken, when `auto` fell back to the CPU. */
  get fallback(): string | undefined {
    return this.whole.runtimes[0]!.fallback;
  }

  /**
   * Runs one pass of a graph; `isPart` of one of several that run side by side. Rejects with RuntimeFailure if it fails or
   * `attempts` processes ended under it.
   */
  run<G extends GraphName>(
    graph: G,
    batch: Graphs[G]["batch"],
    attempts?: number,
    isPart = false,
  ): Promise<Graphs[G]["result"]> {
    if (!this.#known.has(graph)) this.#known.set(graph, batch);
    const [team, other] = isPart && this.divided ? [this.divided, this.whole] : [this.whole, this.divided];
    return (!team.loaded && other?.loaded ? other : team).run(graph, batch, attempts);
  }

  /** Runs every graph that has run once in every process: its first pass is the slowest. Rejects with RuntimeFailure. */
  async warmUp(): Promise<void> {
    const passes = [...this.#known];
    await Promise.all(
      this.#all.flatMap((runtime) => passes.map(([graph, batch]) => runtime.run(graph, batch))),
    );
  }

  /** Ends the processes at once, without a word to those who wait. */
  kill(): void {
    for (const runtime of this.#all) runtime.kill();
  }

  /** Ends the processes; passes in flight are rejected. */
  async close(): Promise<void> {
    await Promise.all(this.#all.map((runtime) => runtime.close()));
  }
}
