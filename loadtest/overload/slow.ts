/** Measures a server with a thousand idle connections and several hundred slow ones. */

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type Percentiles, percentiles } from "../report/checks.ts";
import type { Memory, Server } from "../servers/server.ts";
import { ask, floodBody } from "./ask.ts";
import { crowds } from "./crowds.ts";
import { untilIdle, vanish } from "./vanish.ts";

/** The measurements. */
export interface Slow {
  seconds: number;
  crowds: { name: string; sockets: number; ended: number }[];
  /** Connections of the server: before, with the slow clients, and after they have left. */
  connections: [number, number, number];
  /** Latency of another client's request: before, and with the slow clients. */
  asked: [Percentiles, Percentiles];
  memory: [Memory, Memory, Memory];
  /** Milliseconds until the requests of a frozen client process had ended; undefined if they did not. */
  frozenMs: number | undefined;
  /** The same for a killed process. */
  killedMs: number | undefined;
}

/** Return the number of established connections of a port, from the server's side. Linux. */
function connections(port: number): number {
  const local = port.toString(16).toUpperCase().padStart(4, "0");
  return ["/proc/net/tcp", "/proc/net/tcp6"]
    .flatMap((path) => readFileSync(path, "utf8").split("\n"))
    .filter((line) => {
      const [, address, , state] = line.trim().split(/\s+/);
      return address?.endsWith(`:${local}`) && state === "01";
    }).length;
}

let seed = 3_000_000_000;
async function timesOf(origin: string, count: number): Promise<Percentiles> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const { sentAt, doneAt, status } = await ask(origin, { ...floodBody(1), seed: seed++ });
    if (status === 200) times.push(doneAt - sentAt);
  }
  return percentiles(times);
}

/** Hold the connections open for `seconds`; `size` 1 is a thousand idle ones and 320 slow ones. */
export async function slowClients(server: Server, seconds: number, size: number): Promise<Slow> {
  const { origin, port } = server;
  const before = {
    asked: await timesOf(origin, 15),
    connections: connections(port),
    memory: server.memory(),
  };
  const all = await crowds(port, size);
  const started = performance.now();
  // Wait until the answers to the clients that never read have been computed.
  await untilIdle(server, 60_000);
  const amid = { asked: await timesOf(origin, 15), connections: connections(port), memory: server.memory() };
  while (performance.now() - started < seconds * 1000) await sleep(200);
  const ended = all.map(({ name, sockets, ended }) => ({ name, sockets: sockets.length, ended }));
  for (const crowd of all) crowd.leave();
  for (let i = 0; i < 50 && connections(port) > before.connections; i++) await sleep(100);
  return {
    seconds,
    crowds: ended,
    connections: [before.connections, amid.connections, connections(port)],
    asked: [before.asked, amid.asked],
    memory: [before.memory, amid.memory, server.memory()],
    killedMs: await vanish(server, "SIGKILL", 10_000),
    frozenMs: await vanish(server, "SIGSTOP", Math.min(120_000, seconds * 1000)),
  };
}
