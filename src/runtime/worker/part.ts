/** Entry point of a thread of the runtime process that takes parts of calls. */

import { parentPort, workerData } from "node:worker_threads";
import type { Call, RuntimeOptions } from "../protocol.ts";
import type { FromPart } from "./divided.ts";
import { loadModel } from "./session.ts";

const answer = async (work: () => Promise<FromPart>) => {
  try {
    parentPort!.postMessage(await work());
  } catch (error) {
    parentPort!.postMessage({ error: (error as Error).message } satisfies FromPart);
  }
};

const model = loadModel(workerData as RuntimeOptions);
await answer(async () => {
  await model;
  return { result: undefined };
});
parentPort!.on("message", (call: Call) => answer(async () => ({ result: await (await model).run(call) })));
