/** Entry point of a worker's thread, which runs parts of batches. */

import { parentPort, workerData } from "node:worker_threads";
import type { Batch, WorkerOptions } from "../protocol.ts";
import type { FromPart } from "./divided.ts";
import { loadModel } from "./session.ts";

const answer = async (work: () => Promise<FromPart>) => {
  try {
    parentPort!.postMessage(await work());
  } catch (error) {
    parentPort!.postMessage({ error: (error as Error).message } satisfies FromPart);
  }
};

const model = loadModel(workerData as WorkerOptions);
await answer(async () => {
  await model;
  return { result: undefined };
});
parentPort!.on("message", (batch: Batch) => answer(async () => ({ result: await (await model).run(batch) })));
