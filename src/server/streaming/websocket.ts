/** A WebSocket as a place for events to go: when messages are compressed, and when a socket is given up. */

import { randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";
import type { PerMessageDeflateOptions, WebSocket, WebSocketServer } from "ws";
import type { Sink } from "./outbox.ts";

/**
 * permessage-deflate: a step of 1 to 10 KB shrinks to about a quarter in 50 microseconds. No context is kept between
 * messages: it would take some hundred KB for each socket.
 */
export const COMPRESSION: PerMessageDeflateOptions = {
  threshold: 1024,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  zlibDeflateOptions: { level: 1, memLevel: 7 },
};

/** Whether compressing pays: not on the machine itself, unless the peer is a proxy for somebody else. */
export function isFar({ headers, socket }: Pick<IncomingMessage, "headers" | "socket">): boolean {
  const proxied = headers.forwarded !== undefined || headers["x-forwarded-for"] !== undefined;
  return proxied || !/^(127\.|::1$|::ffff:127\.)/.test(socket.remoteAddress ?? "");
}

/** A socket's outgoing side. */
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
 * Ends a connection that asked for another protocol and is answered as if it had not, once the answer is sent: nobody
 * reads from it any more.
 */
export function endRefusedUpgrade(request: IncomingMessage, response: ServerResponse): void {
  if (!(request as IncomingMessage & { upgrade?: boolean }).upgrade) return;
  if (response.writableFinished) request.socket.destroySoon();
  else response.once("finish", () => request.socket.destroySoon());
}

/** The same for every answer that Fastify's hooks see; errors of its own making pass them by. */
export function endRefusedUpgrades(app: FastifyInstance): void {
  app.addHook("onResponse", async (request, reply) => endRefusedUpgrade(request.raw, reply.raw));
}

/** Close code of a WebSocket whose server is going away (RFC 6455). */
const GOING_AWAY = 1001;
/** Milliseconds that a peer has to answer that its socket is being closed. */
const FAREWELL_MS = 1500;

/** Closes every socket, what waits to be sent first; one whose peer does not answer is ended. */
export function closeAll(server: WebSocketServer, done: (error?: Error) => void): void {
  for (const socket of server.clients) socket.close(GOING_AWAY, "the server is shutting down");
  const late = setTimeout(() => {
    for (const socket of server.clients) socket.terminate();
  }, FAREWELL_MS);
  server.close((error) => {
    clearTimeout(late);
    done(error);
  });
}

/** Rounds of pings in which a socket whose peer takes nothing of what waits for it is kept. */
const STALLED_ROUNDS = 3;

/**
 * Pings every socket; one that has not answered by the next ping is ended, and so is one whose peer takes nothing of what
 * waits for it for STALLED_ROUNDS. Returns what stops it.
 */
export function keepAlive(server: WebSocketServer, everyMs: number): () => void {
  const silent = new WeakSet<WebSocket>();
  /** Bytes that waited for a reader that is too slow, and for how many rounds they have been as many. */
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
      // While we do not read from it, because it reads too slowly, its answer cannot arrive.
      if (socket.isPaused) {
        if (isStalled(socket)) socket.terminate();
        continue;
      }
      if (silent.has(socket)) {
        socket.terminate();
        continue;
      }
      silent.add(socket);
      // A peer that reads nothing cannot know what to answer, so that its own pongs do not count.
      const question = randomBytes(8);
      const heard = (answer: Buffer) => {
        if (!answer.equals(question)) return;
        silent.delete(socket);
        socket.off("pong", heard);
      };
      socket.on("pong", heard);
      socket.ping(question);
    }
  }, everyMs);
  return () => clearInterval(timer);
}
