/** Entry point of a runtime process: it owns ONNX Runtime and answers one message at a time. */

import type { FromRuntime, ToRuntime } from "./protocol.ts";
import { type LoadedModel, loadModel } from "./session.ts";

let model: LoadedModel | undefined;

// A server that was killed takes no more messages: there is nobody left to compute for.
const send = (message: FromRuntime) =>
  process.send!(message, undefined, undefined, (error) => {
    if (error) process.exit(0);
  });

async function handle(message: ToRuntime): Promise<void> {
  switch (message.type) {
    case "load":
      try {
        model = await loadModel(message.options);
        const { provider, fallback } = model;
        send(fallback === undefined ? { type: "loaded", provider } : { type: "loaded", provider, fallback });
      } catch (error) {
        send({ type: "load-failed", message: (error as Error).message });
      }
      return;
    case "ping":
      send({ type: "pong" });
      return;
    case "run":
      try {
        if (!model) throw new Error("no model is loaded");
        send({ type: "result", id: message.id, result: await model.run(message.call) });
      } catch (error) {
        send({ type: "failed", id: message.id, message: (error as Error).message });
      }
  }
}

// The server decides when this process ends: a Ctrl-C reaches the whole process group.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("disconnect", () => process.exit(0));
process.on("message", (message) => void handle(message as ToRuntime));
