/** Answers that are on their way: they arrive before the server stops, unless nobody takes them. */

import type { ServerResponse } from "node:http";
import { Socket } from "node:net";
import type { FastifyInstance } from "fastify";

/** Milliseconds that a server which stops gives its last answers to arrive. */
const LAST_ANSWERS_MS = 3000;

/** Milliseconds from one probe of a half-closed client to the next: doubles from the first to the second. */
const ASK_AGAIN_MS = 20;
const ASK_EVERY_MS = 5000;

/**
 * A client that has ended its side of the connection may still wait for its answer (`nc -N`), or be gone: the system
 * tells them apart only by what becomes of bytes that are sent. So it is sent `102 Processing` until the answer begins:
 * one that is gone refuses the first, and the next then fails and closes the connection.
 */
function watchHalfClosed(answer: ServerResponse, socket: Socket): void {
  let timer: NodeJS.Timeout | undefined;
  const ask = (nextMs: number) => {
    if (answer.headersSent || answer.destroyed || answer.req.httpVersion !== "1.1") return;
    answer.writeProcessing();
    timer = setTimeout(() => ask(Math.min(2 * nextMs, ASK_EVERY_MS)), nextMs);
  };
  const halfClosed = () => ask(ASK_AGAIN_MS);
  socket.once("end", halfClosed);
  answer.once("close", () => {
    clearTimeout(timer);
    socket.off("end", halfClosed);
  });
}

/**
 * Watches over every answer of `app`, those of WebSockets apart. A connection whose client takes nothing of what waits for
 * it for `stallMs` is ended; a slow reader is none of these as long as its side takes some now and then. Once `stopping`,
 * clients are told not to keep their connections, and `app.close()` waits for answers that are being sent.
 */
export function watchAnswers(app: FastifyInstance, stallMs: number, stopping: () => boolean): void {
  const open = new Set<ServerResponse>();
  let emptied = () => {};
  app.addHook("onRequest", async (request, { raw }) => {
    if (request.ws) return;
    open.add(raw);
    raw.once("close", () => {
      open.delete(raw);
      if (open.size === 0) emptied();
    });
    // A test's injected request has no real socket.
    const { socket } = raw;
    if (!(socket instanceof Socket)) return;
    watchHalfClosed(raw, socket);
    // Silence while the model works is no stall: then there is nothing to take.
    raw.setTimeout(stallMs, () => {
      if (socket.writableLength > 0) socket.destroy();
    });
  });
  app.addHook("onSend", async (_request, reply) => {
    if (stopping()) reply.header("connection", "close");
  });
  app.addHook("preClose", async () => {
    if (open.size === 0) return;
    await new Promise<void>((resolve) => {
      emptied = resolve;
      setTimeout(resolve, LAST_ANSWERS_MS).unref();
    });
  });
}
