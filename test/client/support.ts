/** Scripted servers that fail in a known way. */

import { once } from "node:events";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { after } from "node:test";

/** A test server. */
export interface TestServer {
  origin: string;
  close(): Promise<void>;
}

const open = new Set<TestServer>();
// A failing test does not close its server, and the process would not end.
after(() => Promise.all([...open].map((server) => server.close())));

async function start(server: Server, sockets: Set<Socket>): Promise<TestServer> {
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const started: TestServer = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      open.delete(started);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  open.add(started);
  return started;
}

/** The bytes of an answer that a proxy lets through, and how it then stops. */
export interface Cut {
  bytes: number;
  how: "reset" | "end" | "silence";
}

/** A TCP proxy to `origin`; `cuts` apply to the first connections, later ones pass. */
export async function cuttingProxy(
  origin: string,
  cuts: readonly Cut[],
): Promise<TestServer & { bytes: () => number }> {
  const sockets = new Set<Socket>();
  let connections = 0;
  let bytes = 0;
  const server = createServer((client) => {
    const cut = cuts[connections++];
    const upstream = connect(Number(new URL(origin).port), "127.0.0.1");
    sockets.add(upstream);
    let left = cut?.bytes ?? Number.POSITIVE_INFINITY;
    const stop = () => {
      upstream.destroy();
      if (cut?.how === "reset") client.resetAndDestroy();
      else if (cut?.how === "end") client.end();
    };
    if (left === 0) return stop();
    client.pipe(upstream);
    upstream.on("data", (chunk) => {
      bytes += chunk.length;
      if (left > 0) client.write(chunk.subarray(0, left));
      if (left > 0 && chunk.length >= left) stop();
      left -= chunk.length;
    });
    upstream.on("end", () => client.end());
    for (const socket of [client, upstream]) socket.on("error", () => {});
    client.on("close", () => upstream.destroy());
  });
  return { ...(await start(server, sockets)), bytes: () => bytes };
}

/** A server that gives the answers in order, and repeats the last one. */
export async function scripted(
  ...answers: ((response: ServerResponse, request: IncomingMessage) => void)[]
): Promise<TestServer & { requests: IncomingMessage[] }> {
  const requests: IncomingMessage[] = [];
  const server = createHttpServer((request, response) => {
    requests.push(request.resume());
    answers[Math.min(requests.length, answers.length) - 1]!(response, request);
  });
  return { ...(await start(server, new Set())), requests };
}

/** A `fetch` that records its calls and their times. */
export function countingFetch() {
  const answers: { response: Response; at: number }[] = [];
  let calls = 0;
  const counted: typeof fetch = async (...request) => {
    calls++;
    const response = await fetch(...request);
    answers.push({ response, at: performance.now() });
    return response;
  };
  return { fetch: counted, answers, calls: () => calls };
}
