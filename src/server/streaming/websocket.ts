/** WebSockets: compression, pings, and closing of stalled and refused ones. */

import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";
import type { PerMessageDeflateOptions, WebSocket, WebSocketServer } from "ws";
import type { Sink } from "./outbox.ts";

/**
 * permessage-deflate: a step of 1 to 10 KB shrinks to about a quarter in 50 microseconds. A context kept
 * between messages would take several hundred KB for each socket.
 */
export const COMPRESSION: PerMessageDeflateOptions = {
  threshold: 1024,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  zlibDeflateOptions: { level: 1, memLevel: 7 },
};

/** Return whether the client is on another machine, so that compression pays; a local proxy counts as one. */
export function isFar({ headers, socket }: Pick<IncomingMessage, "headers" | "socket">): boolean {
  const proxied = headers.forwarded !== undefined || headers["x-forwarded-for"] !== undefined;
  return proxied || !/^(127\.|::1$|::ffff:127\.)/.test(socket.remoteAddress ?? "");
}

/** Return the sink of a socket. */
export function socketSink(socket: WebSocket, compress: boolean): Sink {
  return {
    get open() {
      return socket.readyState === socket.OPEN;
    },
    get waiting() {
      return socket.bufferedAmount;
    },
    write: (event, sent) => socket.send(JSON.stringify(event), { compress }, sent),
  };
}

/**
 * Close the connection of a refused upgrade once the answer is sent: Node does not read from such a
 * connection again.
 */
export function endRefusedUpgrade(request: IncomingMessage, response: ServerResponse): void {
  if (!(request as IncomingMessage & { upgrade?: boolean }).upgrade) return;
  if (response.writableFinished) request.socket.destroySoon();
  else response.once("finish", () => request.socket.destroySoon());
}

/** Call `endRefusedUpgrade` for every answer that passes the hooks; errors of Fastify itself do not. */
export function endRefusedUpgrades(app: FastifyInstance): void {
  app.addHook("onResponse", async (request, reply) => endRefusedUpgrade(request.raw, reply.raw));
}

/** Close code of a WebSocket whose server is going away (RFC 6455). */
const GOING_AWAY = 1001;
/** Milliseconds in which a client must answer the close frame. */
const CLOSE_MS = 1500;

/** Close every socket after its waiting data is sent; terminate those whose client does not answer. */
export function closeAll(server: WebSocketServer, done: (error?: Error) => void): void {
  for (const socket of server.clients) socket.close(GOING_AWAY, "the server is shutting down");
  const late = setTimeout(() => {
    for (const socket of server.clients) socket.terminate();
  }, CLOSE_MS);
  server.close((error) => {
    clearTimeout(late);
    done(error);
  });
}

/** Rounds of pings after which a socket is closed whose client reads none of the waiting data. */
const STALLED_ROUNDS = 3;

/**
 * Ping every socket; terminate those that have not answered by the next ping, and those whose client reads
 * none of the waiting data for STALLED_ROUNDS. Return a function that stops the pings.
 */
export function keepAlive(server: WebSocketServer, everyMs: number): () => void {
  const silent = new WeakSet<WebSocket>();
  /** Bytes that wait for a slow reader, and the rounds since their number last changed. */
  const waiting = new WeakMap<WebSocket, { bytes: number; rounds: number }>();
  const isStalled = (socket: WebSocket) => {
    const bytes = socket.bufferedAmount;
    const before = waiting.get(socket);
    const rounds = bytes > 0 && bytes === before?.bytes ? before.rounds + 1 : 0;
    waiting.set(socket, { bytes, rounds });
    return rounds >= STALLED_ROUNDS;
  };
  const timer = setInterval(() => {
    for (const socket of server.clients) {
      // A paused socket is not read, so that its pong cannot arrive.
      if (socket.isPaused) {
        if (isStalled(socket)) socket.terminate();
        continue;
      }
      if (silent.has(socket)) {
        socket.terminate();
        continue;
      }
      silent.add(socket);
      // A random payload, so that a client that does not read cannot send the right pong.
      const payload = randomBytes(8);
      const pong = (answer: Buffer) => {
        if (!answer.equals(payload)) return;
        silent.delete(socket);
        socket.off("pong", pong);
      };
      socket.on("pong", pong);
      socket.ping(payload);
    }
  }, everyMs);
  return () => clearInterval(timer);
}
