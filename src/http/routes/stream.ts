/** GET /generate/stream: a WebSocket that streams every denoising step of several generations. */

import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import type { Engine, Ticket } from "../../engine/engine.ts";
import { InvalidRequestError, UpgradeRequiredError } from "../../errors.ts";
import { type Schemas, valid, validator } from "../openapi.ts";
import { Outbox } from "../outbox.ts";
import { problem, toProblem } from "../problem.ts";
import { isFar, socketSink } from "../socket.ts";

/** Generations that one socket may have running. */
const MAX_PER_SOCKET = 64;

export async function streamRoute(app: FastifyInstance, { engine }: { engine: Engine }) {
  const validators = { generate: validator("GenerateMessage"), cancel: validator("CancelMessage") };
  const open = (socket: WebSocket, request: FastifyRequest) => {
    const tickets = new Map<string, Ticket>();
    const outbox = new Outbox(socketSink(socket, isFar(request.raw)));
    const fail = (id: string | undefined, error: unknown) => {
      const answer = toProblem(error);
      if (answer.bug) request.log.error({ err: error }, "generation failed");
      answer.problem.request_id = request.id;
      outbox.send({ type: "error", ...(id !== undefined && { id }), error: answer.problem });
    };

    const generate = ({ type: _, id, ...body }: Schemas["GenerateMessage"]) => {
      if (tickets.has(id))
        throw new InvalidRequestError([{ path: "/id", message: `${id} is still running on this socket` }]);
      if (tickets.size >= MAX_PER_SOCKET)
        throw new InvalidRequestError([
          { path: "/id", message: `a socket runs at most ${MAX_PER_SOCKET} generations at once` },
        ]);
      const ticket = engine.submit(body, (step) => outbox.send({ type: "step", id, ...step }));
      tickets.set(id, ticket);
      outbox.send({ type: "accepted", id, seed: ticket.seed, spans: ticket.spans });
      ticket.result
        .then((result) => outbox.send({ type: "done", ...result, id }))
        .catch((error) => fail(id, error))
        .finally(() => tickets.delete(id));
    };

    const cancel = ({ id }: Schemas["CancelMessage"]) => {
      const ticket = tickets.get(id);
      if (!ticket)
        throw new InvalidRequestError([
          { path: "/id", message: "names no running generation of this socket" },
        ]);
      ticket.cancel();
    };

    const dispatch = (message: unknown) => {
      const type = (message as { type?: unknown } | null)?.type;
      if (type === "generate") return generate(valid(validators.generate(message)));
      if (type === "cancel") return cancel(valid(validators.cancel(message)));
      throw new InvalidRequestError([{ path: "/type", message: "must be generate or cancel" }]);
    };

    const receive = (data: string) => {
      let message: unknown;
      try {
        message = JSON.parse(data);
      } catch (error) {
        const detail = `the message cannot be parsed: ${(error as Error).message}`;
        return outbox.send({ type: "error", error: problem("invalid-json", detail) });
      }
      try {
        dispatch(message);
      } catch (error) {
        const id = (message as { id?: unknown } | null)?.id;
        fail(typeof id === "string" ? id : undefined, error);
      }
    };

    socket.on("message", (data, isBinary) => {
      if (!isBinary) return receive(data.toString());
      fail(undefined, new InvalidRequestError([{ path: "", message: "must be a text frame with JSON" }]));
    });
    socket.on("error", (error) => request.log.info({ err: error }, "socket failed"));
    socket.on("close", () => {
      for (const ticket of tickets.values()) ticket.cancel();
    });
  };

  app.route({
    method: "GET",
    url: "/generate/stream",
    handler: async () => {
      throw new UpgradeRequiredError(
        "open this address as a WebSocket, or POST /generate for a single answer",
      );
    },
    wsHandler: open,
  });
}
