/** The bare loops of bare.ts, as child processes. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { BareJob } from "./bare.ts";

/** One or more loops around the model side by side, each in a process of its own. */
export class BareLoop {
  readonly #children: readonly ChildProcess[];
  readonly #died: Promise<never>;

  /** `threads` of each; 0 is one for each core. */
  constructor(
    readonly model: string,
    readonly threads = 0,
    count = 1,
  ) {
    const script = fileURLToPath(new URL("./bare.ts", import.meta.url));
    this.#children = Array.from({ length: count }, () => fork(script));
    this.#died = Promise.race(this.#children.map((child) => once(child, "exit"))).then(([code]) => {
      throw new Error(`the bare loop ended with exit code ${code}`);
    });
    this.#died.catch(() => {});
  }

  /** Return tokens a second of all loops, each of `rounds` batches of `rows`. Reject if a process ends. */
  async run(job: Omit<BareJob, "model" | "threads">): Promise<number> {
    const speeds = this.#children.map(async (child) => {
      child.send({ ...job, model: this.model, threads: this.threads } satisfies BareJob);
      const [seconds] = (await Promise.race([once(child, "message"), this.#died])) as [number];
      return (job.rows * job.rounds * job.length) / seconds;
    });
    return (await Promise.all(speeds)).reduce((a, b) => a + b);
  }

  close(): void {
    for (const child of this.#children) child.kill();
  }
}
