/**
 * A model whose calls of several rows are divided over threads, each with sessions of its own: the parts wait for each other
 * once a call, where the threads inside a session wait for each other at every operator.
 */

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Batch, GraphName, Graphs, WorkerOptions } from "../protocol.ts";
import { divide, join } from "./divide.ts";
import { type LoadedModel, loadModel } from "./session.ts";

type Result = Graphs[GraphName]["result"];

/** What a thread answers: to its start `undefined`, to a part its result, or what went wrong. */
export type FromPart = { result: Result | undefined } | { error: string };

/** The thread as it is in `dist`, or as tsx runs it from `src`: that does not reach into threads by itself. */
function openThread(workerData: WorkerOptions): Worker {
  if (!import.meta.url.endsWith(".ts"))
    return new Worker(new URL("./part.js", import.meta.url), { workerData });
  const [tsx, part] = ["tsx/esm/api", "./part.ts"].map((name) => JSON.stringify(import.meta.resolve(name)));
  const code = `import(${tsx}).then((tsx) => { tsx.register(); return import(${part}); })`;
  return new Worker(code, { eval: true, workerData });
}

/** The thread's next answer. Rejects with its error. */
async function answer(thread: Worker): Promise<Result | undefined> {
  const [message] = (await once(thread, "message")) as [FromPart];
  if ("error" in message) throw new Error(message.error);
  return message.result;
}

/** Starts a thread. It takes the process along when it ends: another process is started then, not another thread. */
async function startThread(options: WorkerOptions): Promise<Worker> {
  const thread = openThread(options);
  thread.once("exit", () => process.exit(1));
  await answer(thread);
  return thread;
}

/** Waits for all, even if one fails: the threads are to be free. */
async function all<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}

/**
 * Loads the graphs, and, on the CPU, those of the parts that the options ask for. Calls are to be made one at a time. Throws if
 * the graphs cannot be loaded.
 */
export async function loadDivided(options: WorkerOptions): Promise<LoadedModel> {
  const { graphs, split } = options;
  if (!split) return loadModel(options);
  const part: WorkerOptions = { graphs, device: "cpu", threads: split.threads };
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
