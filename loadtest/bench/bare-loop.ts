/**
 * The baseline of the benchmarks: the loop of the sampler alone, in child processes. Run as a script, this
 * file is such a process: it gets a job as a message, and sends back its seconds.
 */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { openModel } from "../../src/model/model.ts";
import { loadModel } from "../../src/runtime/worker/session.ts";
import { runLoop } from "./loop.ts";

const SCRIPT = fileURLToPath(import.meta.url);

/** One measurement: `rounds` times a batch of `rows` samples. */
interface BareJob {
  model: string;
  threads: number;
  rows: number;
  rounds: number;
  length: number;
  steps: number;
}

/** One or more loops around the model at the same time, each in its own process. */
export class BareLoop {
  readonly #children: readonly ChildProcess[];
  readonly #died: Promise<never>;

  /** `threads` of each loop; 0 is one for each core. */
  constructor(
    readonly model: string,
    readonly threads = 0,
    count = 1,
  ) {
    this.#children = Array.from({ length: count }, () => fork(SCRIPT));
    this.#died = Promise.race(this.#children.map((child) => once(child, "exit"))).then(([code]) => {
      throw new Error(`the bare loop ended with exit code ${code}`);
    });
    this.#died.catch(() => {});
  }

  /** Return tokens a second of all loops, each of `rounds` batches of `rows`. Rejects if a process ends. */
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

async function load(job: BareJob) {
  const model = await openModel(job.model);
  return { model, graphs: await loadModel({ graphs: model.graphs, device: "cpu", threads: job.threads }) };
}

/** Run the jobs that come as messages. */
function runJobs(): void {
  let loaded: ReturnType<typeof load> | undefined;
  process.on("message", async (job: BareJob) => {
    loaded ??= load(job);
    const { model, graphs } = await loaded;
    const started = performance.now();
    for (let round = 0; round < job.rounds; round++) {
      const keys = Array.from({ length: job.rows }, (_, i) => ({ seed: round * job.rows + i, sample: 0 }));
      await runLoop(model, graphs, { keys, length: job.length, steps: job.steps });
    }
    process.send!((performance.now() - started) / 1000);
  });
}

if (process.argv[1] === SCRIPT) runJobs();
