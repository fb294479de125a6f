/** Entry point of a worker: owns ONNX Runtime and handles one message at a time. */

import { beginHeartbeat } from "../heartbeat.ts";
import { type FromWorker, OUT_OF_MEMORY, type ToWorker } from "../protocol.ts";
import { loadDivided } from "./divided.ts";
import type { LoadedModel } from "./session.ts";

beginHeartbeat();

let model: LoadedModel | undefined;

/** Out of memory, in the words of ONNX Runtime, the C++ library, CUDA and V8. */
const NO_MEMORY = /bad_alloc|bad allocation|failed to allocate|allocation failed|out of memory/i;

/** Return an error message of ONNX Runtime in one line, without its source location. */
const inOneLine = (message: string) =>
  message
    .replace(/\/onnxruntime_src\S+ [^()]*\([^()]*\) /, " ")
    .replace(/\s+/g, " ")
    .trim();

// A failed send means that the server is gone.
const send = (message: FromWorker) =>
  process.send!(message, undefined, undefined, (error) => {
    if (error) process.exit(0);
  });

async function handle(message: ToWorker): Promise<void> {
  switch (message.type) {
    case "load":
      try {
        model = await loadDivided(message.options);
        const { provider, fallback } = model;
        send(fallback === undefined ? { type: "loaded", provider } : { type: "loaded", provider, fallback });
      } catch (error) {
        send({ type: "load-failed", message: inOneLine((error as Error).message) });
      }
      return;
    case "ping":
      send({ type: "pong" });
      return;
    case "run":
      try {
        if (!model) throw new Error("no model is loaded");
        send({ type: "result", id: message.id, result: await model.run(message.batch, message.everywhere) });
      } catch (error) {
        const { message: what } = error as Error;
        // A new process starts without the memory allocated so far, and runs the batch again.
        if (NO_MEMORY.test(what)) process.exit(OUT_OF_MEMORY);
        send({ type: "failed", id: message.id, message: what });
      }
  }
}

// The server decides when this process ends, although Ctrl-C reaches the whole process group.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("disconnect", () => process.exit(0));
let last = Promise.resolve();
process.on("message", (message) => {
  last = last.then(() => handle(message as ToWorker));
});
