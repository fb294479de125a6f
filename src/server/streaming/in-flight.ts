/** Answers in transit: the server stops after they have arrived, and closes connections that read nothing. */

import type { ServerResponse } from "node:http";
import { Socket } from "node:net";
import type { FastifyInstance } from "fastify";

/** Milliseconds that a stopping server waits for its last answers to arrive. */
const LAST_ANSWERS_MS = 3000;

/**
 * Milliseconds between probes of a half-closed client; the interval doubles from the first to the second
 * value.
 */
const [FIRST_PROBE_MS, PROBE_MS] = [20, 5000];

/**
 * Probe a client that has closed its sending side: it may still wait for its answer (`nc -N`), or be gone.
 * The system tells the difference only for bytes that are sent, so `102 Processing` is sent until the answer
 * begins. If the client is gone, the first probe is refused, and the next one fails and closes the
 * connection.
 */
function watchHalfClosed(answer: ServerResponse, socket: Socket): void {
  let timer: NodeJS.Timeout | undefined;
  const probe = (nextMs: number) => {
    if (answer.headersSent || answer.destroyed || answer.req.httpVersion !== "1.1") return;
    answer.writeProcessing();
    timer = setTimeout(() => probe(Math.min(2 * nextMs, PROBE_MS)), nextMs);
  };
  const halfClosed = () => probe(FIRST_PROBE_MS);
  socket.once("end", halfClosed);
  answer.once("close", () => {
    clearTimeout(timer);
    socket.off("end", halfClosed);
  });
}

/**
 * Watch every answer of `app` except WebSockets. A connection is closed if its client reads none of the
 * waiting data for `stallMs`; slow readers are kept. Once `stopping` returns true, answers have `Connection:
 * close`, and `app.close()` waits for answers in transit.
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
    // A request injected by a test has no socket.
    const { socket } = raw;
    if (!(socket instanceof Socket)) return;
    watchHalfClosed(raw, socket);
    // While the model runs, there is nothing to read: that is no stall.
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
