/**
 * Run the parts of a batch on threads, each with sessions of its own. The parts wait for each other once a
 * batch, while the threads inside a session wait for each other at every operator.
 */

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Batch, GraphName, Graphs, WorkerOptions } from "../protocol.ts";
import { divide, join } from "./divide.ts";
import { type LoadedModel, loadModel } from "./session.ts";

type Result = Graphs[GraphName]["result"];

/** Message of a thread: `undefined` once it has loaded the model, the result of a part, or an error. */
export type FromPart = { result: Result | undefined } | { error: string };

/** Open a thread from `dist`, or through tsx from `src`, since tsx does not register itself in threads. */
function openThread(workerData: WorkerOptions): Worker {
  if (!import.meta.url.endsWith(".ts"))
    return new Worker(new URL("./part.js", import.meta.url), { workerData });
  const [tsx, part] = ["tsx/esm/api", "./part.ts"].map((name) => JSON.stringify(import.meta.resolve(name)));
  const code = `import(${tsx}).then((tsx) => { tsx.register(); return import(${part}); })`;
  return new Worker(code, { eval: true, workerData });
}

/** Wait for the next message of a thread. Rejects with its error. */
async function answer(thread: Worker): Promise<Result | undefined> {
  const [message] = (await once(thread, "message")) as [FromPart];
  if ("error" in message) throw new Error(message.error);
  return message.result;
}

/** Start a thread. If it ends, the whole worker exits and is replaced. */
async function startThread(options: WorkerOptions): Promise<Worker> {
  const thread = openThread(options);
  thread.once("exit", () => process.exit(1));
  await answer(thread);
  return thread;
}

/** Wait for all promises even if one rejects, so that every thread is free afterwards. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/**
 * Load the graphs, and with `options.split` on the CPU also those of each part. Run one batch at a time.
 * Throws if the graphs cannot be loaded.
 */
export async function loadDivided(options: WorkerOptions): Promise<LoadedModel> {
  const { graphs, split } = options;
  if (!split) return loadModel(options);
  const part: WorkerOptions = { graphs, device: "cpu", threads: split.threads, lazy: true };
  let starting: Promise<Worker[]> | undefined;
  const whole = await loadModel(options, (provider) => {
    if (provider !== "cpu") return;
    // Loading takes half a second a thread; they load side by side.
    starting = all(Array.from({ length: split.parts - 1 }, () => startThread(part)));
    starting.catch(() => {});
  });
  if (!starting) return whole;
  const own = await loadModel(part);
  const threads = await starting;
  const run = async (batch: Batch, everywhere = false) => {
    const parts = everywhere ? Array<Batch>(split.parts).fill(batch) : divide(batch, split.parts);
    const [first, ...others] = parts;
    if (others.length === 0) return whole.run(batch);
    const started = performance.now();
    const before = everywhere ? [await whole.run(batch)] : [];
    const answers = others.map((other, i) => {
      threads[i]!.postMessage(other);
      return answer(threads[i]!);
    });
    const results = await all([own.run(first!), ...answers]);
    return join([...before, ...(results as Result[])], performance.now() - started);
  };
  return { ...whole, run };
}
