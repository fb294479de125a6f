/** Runtime processes that do the same: a pass goes to one of them. */

import type { GraphName, Graphs, RuntimeOptions } from "./protocol.ts";
import { Runtime } from "./runtime.ts";

/** Passes go to the process that has the fewest, of those that hold the model. */
export class Team {
  readonly #load: Map<Runtime, number>;

  private constructor(runtimes: readonly Runtime[]) {
    this.#load = new Map(runtimes.map((runtime) => [runtime, 0]));
  }

  /** Starts `count` processes. Throws StartupError if the model cannot be loaded; none is left then. */
  static async start(options: RuntimeOptions, count: number): Promise<Team> {
    const started = await Promise.allSettled(Array.from({ length: count }, () => Runtime.start(options)));
    const runtimes = started.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const failure = started.find((one) => one.status === "rejected");
    if (!failure) return new Team(runtimes);
    await Promise.all(runtimes.map((runtime) => runtime.close()));
    throw failure.reason;
  }

  get runtimes(): Runtime[] {
    return [...this.#load.keys()];
  }

  /** True while any of the processes holds the model. */
  get loaded(): boolean {
    return this.runtimes.some((runtime) => runtime.loaded);
  }

  /** Runs one pass of a graph. Rejects with RuntimeFailure if it fails or `attempts` processes ended under it. */
  async run<G extends GraphName>(
    graph: G,
    batch: Graphs[G]["batch"],
    attempts?: number,
  ): Promise<Graphs[G]["result"]> {
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
}
