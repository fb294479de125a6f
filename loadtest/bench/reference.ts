/**
 * Compares the server with the published sampler in PyTorch on the same weights, and with its matrix products
 * alone.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { denoiseInput } from "../../src/engine/scheduling/batch.ts";
import { openModel } from "../../src/model/model.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { splitOf } from "../../src/runtime/split.ts";
import { loadDivided } from "../../src/runtime/worker/divided.ts";
import type { Server } from "../servers/server.ts";
import { ratios } from "../traffic/statistics.ts";
import { HalfWay } from "./graphs.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";
import { generate } from "./requests.ts";

/**
 * The process `python -m didi.tools.reference_speed`: it reads a job as a line of JSON and prints the seconds
 * it took.
 */
export class Reference {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  /** Version of PyTorch, and its threads. */
  versions = { torch: "", threads: 0, device: "" };

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    this.#lines = lines[Symbol.asyncIterator]();
  }

  /** Start the process; `weights` are the flags that name the weights. Rejects if it does not start. */
  static async start(python: string, weights: readonly string[]): Promise<Reference> {
    const child = spawn(python, ["-P", "-m", "didi.tools.reference_speed", ...weights], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, PYTHONPATH: join(PACKAGE_ROOT, "training") },
    });
    await once(child, "spawn");
    const reference = new Reference(child, createInterface({ input: child.stdout! }));
    reference.versions = await reference.#answer();
    // Writing to a process that has ended fails; reading tells why.
    child.stdin!.on("error", () => {});
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

  /** Return the seconds of a request of `rows` samples. */
  sample(rows: number, length: number, steps: number): Promise<number> {
    return this.#ask({ job: "sample", rows, length, steps });
  }

  /** Return the seconds of the matrix products of one step. */
  products(rows: number, length: number, picks: number, int8: boolean): Promise<number> {
    return this.#ask({ job: "products", rows, length, picks, int8 });
  }

  /** Print the versions. */
  say(): void {
    const { torch, threads } = this.versions;
    console.log(`\nReference: PyTorch ${torch}, ${threads} threads, float32`);
  }

  close(): void {
    this.#child.kill();
  }
}

/** Print the seconds of a request to the server and to the PyTorch sampler. */
export async function againstReference(
  { origin }: Server,
  reference: Reference,
  grid: readonly { length: number; steps: number }[],
  repeats: number,
): Promise<void> {
  console.log(`\nSeconds a request, 1 client; median of ${repeats} (lowest to highest)\n`);
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

/**
 * Print the milliseconds of batches of `denoise` of one and of eight rows, and of their matrix products
 * alone, in the precision that the model is served in.
 */
export async function againstProducts(
  folder: string,
  reference: Reference,
  lengths: readonly number[],
  repeats: number,
): Promise<void> {
  const model = await openModel(folder);
  const precision = model.precision.cpu;
  const split = await splitOf("auto", model, 0);
  const graphs = await loadDivided({ graphs: model.graphs, device: "cpu", threads: 0, split });
  console.log(
    `\nMilliseconds a step in ${precision}, a sixteenth of the canvas revealed; ` +
      `median of ${repeats} (lowest to highest)\n`,
  );
  tableHead("length", "rows", "step", "its matrix products alone", "fraction of the limit");
  for (const length of lengths)
    for (const rows of [1, 8]) {
      const canvas = new HalfWay(model, length);
      const picks = length / 16;
      const input = denoiseInput(Array.from({ length: rows }, () => canvas.row("plain", canvas.due(picks))));
      const step = async () => (await graphs.run({ graph: "denoise", input })).milliseconds;
      const products = async () =>
        (await reference.products(rows, length, picks, precision === "int8")) * 1000;
      await step();
      await products();
      const [ours, limit] = (await interleave(repeats, step, products)) as [number[], number[]];
      tableRow(length, rows, range(ours, 1), range(limit, 1), range(ratios(limit, ours), 2));
    }
}
