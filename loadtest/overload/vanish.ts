/**
 * A client process that is killed or frozen while its requests run. Run as a script, this file is that
 * client.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import type { Server } from "../servers/server.ts";

const SCRIPT = fileURLToPath(import.meta.url);
/** WebSockets of the client, each with one long request. */
const SOCKETS = 8;

/**
 * Return the milliseconds until the server has no active row; undefined if it has one after `limit`
 * milliseconds.
 */
export async function untilIdle(server: Server, limit: number): Promise<number | undefined> {
  const started = performance.now();
  while (performance.now() - started < limit) {
    if ((await server.metric("didi_active_rows")) === 0) return performance.now() - started;
    await sleep(100);
  }
  return undefined;
}

/**
 * Start the client, send it `signal` when all its requests run, and return the milliseconds until the server
 * has freed their rows; undefined if it has not after `limit` milliseconds.
 */
export async function vanish(
  server: Server,
  signal: NodeJS.Signals,
  limit: number,
): Promise<number | undefined> {
  const child = spawn(process.execPath, ["--import", "tsx", SCRIPT, server.origin], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  process.once("exit", () => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  child.kill(signal);
  const ms = await untilIdle(server, limit);
  child.kill("SIGKILL");
  if (ms === undefined) await untilIdle(server, 60_000);
  return ms;
}

/** Open a WebSocket with a long request; resolve when the request runs. */
async function holdOpen(origin: string, seed: number): Promise<void> {
  const socket = new WebSocket(`${origin.replace("http", "ws")}/generate/stream`);
  socket.on("error", () => {});
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "generate", id: "a", prompt: "", length: 200, steps: 1024, seed }));
  await once(socket, "message");
}

if (process.argv[1] === SCRIPT) {
  await Promise.all(Array.from({ length: SOCKETS }, (_, i) => holdOpen(process.argv[2]!, i)));
  console.log("all requests run");
  setInterval(() => {}, 1000);
}
