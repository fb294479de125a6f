/** A process with WebSockets that each run a long generation, to be frozen or killed: `sockets.ts <origin> <count>`. */

import { WebSocket } from "ws";

const [origin, count] = process.argv.slice(2);
const url = `${origin!.replace("http", "ws")}/generate/stream`;
await Promise.all(
  Array.from({ length: Number(count) }, async (_, i) => {
    const socket = new WebSocket(url);
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("open", resolve));
    socket.send(JSON.stringify({ type: "generate", id: "a", prompt: "", length: 200, steps: 1024, seed: i }));
    await new Promise((resolve) => socket.once("message", resolve));
  }),
);
console.log("under way");
setInterval(() => {}, 1000);
