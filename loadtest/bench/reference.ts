/** The server against the straight PyTorch sampler on the same weights, and against its matrix products alone. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { denoiseBatch } from "../../src/engine/batch.ts";
import { openModel } from "../../src/model/model.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { loadModel } from "../../src/runtime/session.ts";
import type { Server } from "../servers/server.ts";
import { ratios } from "../traffic/statistics.ts";
import { HalfWay } from "./graphs.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";
import { generate } from "./requests.ts";

/** `python -m didi.reference_speed`: a line of JSON a job, seconds back. */
export class Reference {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  /** Of what it runs on. */
  versions = { torch: "", threads: 0 };

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    this.#lines = lines[Symbol.asyncIterator]();
  }

  /** `weights` are the flags that name them. Rejects if the process does not start. */
  static async start(python: string, weights: readonly string[]): Promise<Reference> {
    const child = spawn(python, ["-P", "-m", "didi.reference_speed", ...weights], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, PYTHONPATH: join(PACKAGE_ROOT, "models", "training") },
    });
    await once(child, "spawn");
    const reference = new Reference(child, createInterface({ input: child.stdout! }));
    reference.versions = await reference.#answer();
    return reference;
  }

  async #answer() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("the reference process ended");
    return JSON.parse(value);
  }

  #ask(job: object): Promise<number> {
    this.#child.stdin!.write(`${JSON.stringify(job)}\n`);
    return this.#answer();
  }

  /** Seconds of a generation. */
  sample(rows: number, length: number, steps: number): Promise<number> {
    return this.#ask({ job: "sample", rows, length, steps });
  }

  /** Seconds of the matrix products of a step. */
  products(rows: number, length: number, picks: number): Promise<number> {
    return this.#ask({ job: "products", rows, length, picks });
  }

  /** Prints what it runs on. */
  say(): void {
    const { torch, threads } = this.versions;
    console.log(`\nReference: PyTorch ${torch}, ${threads} threads, float32`);
  }

  close(): void {
    this.#child.kill();
  }
}

/** Seconds of a generation through the server beside the straight sampler. */
export async function againstReference(
  { origin }: Server,
  reference: Reference,
  grid: readonly { length: number; steps: number }[],
  repeats: number,
): Promise<void> {
  console.log(`\nSeconds a generation, 1 client; median of ${repeats} (lowest to highest)\n`);
  tableHead("length", "steps", "served", "PyTorch, all logits every step", "times as fast");
  for (const { length, steps } of grid) {
    const ours = async (seed: number) => {
      const started = performance.now();
      await generate(origin, { length, steps, seed });
      return (performance.now() - started) / 1000;
    };
    let seed = 0;
    await ours(seed);
    const [served, straight] = (await interleave(
      repeats,
      () => ours(++seed),
      () => reference.sample(1, length, steps),
    )) as [number[], number[]];
    tableRow(length, steps, range(served, 3), range(straight, 3), range(ratios(straight, served), 2));
  }
}

/** A call of `denoise` beside its matrix products alone. */
export async function againstProducts(
  folder: string,
  reference: Reference,
  lengths: readonly number[],
  repeats: number,
): Promise<void> {
  const model = await openModel(folder);
  const graphs = await loadModel({ graphs: model.graphs, device: "cpu", threads: 0 });
  console.log(
    `\nMilliseconds a step, a sixteenth of the canvas revealed; median of ${repeats} (lowest to highest)\n`,
  );
  tableHead("length", "step", "its matrix products alone", "fraction of the limit");
  for (const length of lengths) {
    const canvas = new HalfWay(model, length);
    const picks = length / 16;
    const batch = denoiseBatch([canvas.row("plain", canvas.due(picks))]);
    const step = async () => (await graphs.run({ graph: "denoise", batch })).milliseconds;
    const products = async () => (await reference.products(1, length, picks)) * 1000;
    await step();
    await products();
    const [ours, limit] = (await interleave(repeats, step, products)) as [number[], number[]];
    tableRow(length, range(ours, 1), range(limit, 1), range(ratios(limit, ours), 2));
  }
}
