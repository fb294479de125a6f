/** GET /generate/stream: a WebSocket that streams every denoising step of several generations. */

import type { FastifyInstance, FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import type { Ticket } from "../../engine/engine.ts";
import { InvalidRequestError, UnauthorizedError, UpgradeRequiredError } from "../../errors.ts";
import type { Admission } from "../access/admission.ts";
import { knownKey } from "../access/guard.ts";
import type { ApiKey, KeyRing } from "../access/keys.ts";
import { type Schemas, valid, validator } from "../openapi.ts";
import { Outbox } from "../outbox.ts";
import { type Problem, problem, toProblem } from "../problem.ts";
import { schemaOf } from "../route-schema.ts";
import { isFar, socketSink } from "../socket.ts";
import { recordOf } from "../telemetry/record.ts";

/** Generations that one socket may have running. */
const MAX_PER_SOCKET = 64;

/** Messages of one socket that may wait for the one before them; nothing more is read meanwhile. */
const MAX_WAITING = 256;

/** Close code of a socket without a key: as 401 is in HTTP. */
const UNAUTHORIZED = 4401;

/** Settings of the route. */
export interface StreamOptions {
  admission: Admission;
  /** Absent: no key is asked for. */
  keys: KeyRing | undefined;
  /** Milliseconds in which a socket without a key must bring one. */
  authMs: number;
}

export async function streamRoute(app: FastifyInstance, { admission, keys, authMs }: StreamOptions) {
  const validators = {
    auth: validator("AuthMessage"),
    generate: validator("GenerateMessage"),
    cancel: validator("CancelMessage"),
  };
  const open = (socket: WebSocket, request: FastifyRequest) => {
    const tickets = new Map<string, Ticket>();
    const outbox = new Outbox(socketSink(socket, isFar(request.raw)));
    const fail = (id: string | undefined, error: unknown, record = recordOf(request)?.message()) => {
      const answer = toProblem(error);
      if (answer.bug) request.log.error({ err: error }, "generation failed");
      refuse(id, answer.problem, record);
    };
    const refuse = (id: string | undefined, problem: Problem, record = recordOf(request)?.message()) => {
      record?.fail(problem);
      record?.end(problem.status);
      const error = { ...problem, request_id: request.id };
      outbox.send({ type: "error", ...(id !== undefined && { id }), error });
    };

    const cancelRunning = () => {
      for (const ticket of tickets.values()) ticket.cancel();
    };
    /** Sends a stranger away, whatever is running. */
    const expel = (error: UnauthorizedError) => {
      fail(undefined, error);
      socket.close(UNAUTHORIZED, "unauthorized");
      cancelRunning();
    };
    const enter = (key: ApiKey) => {
      request.key = key;
      const revoked = () => expel(new UnauthorizedError("the API key was removed", true));
      key.revoked.addEventListener("abort", revoked);
      socket.once("close", () => key.revoked.removeEventListener("abort", revoked));
    };
    if (request.key) enter(request.key);
    const late = setTimeout(
      () => expel(new UnauthorizedError(`no key came within ${authMs} ms: send it first`, false)),
      authMs,
    );
    socket.once("close", () => clearTimeout(late));
    if (!keys || request.key) clearTimeout(late);

    const authenticate = (message: Schemas["AuthMessage"]) => {
      if (keys && !request.key) enter(knownKey(keys, message.key));
      clearTimeout(late);
      outbox.send({ type: "authenticated" });
    };

    const generate = async ({ type: _, id, ...body }: Schemas["GenerateMessage"]) => {
      if (tickets.has(id))
        throw new InvalidRequestError([{ path: "/id", message: `${id} is still running on this socket` }]);
      if (tickets.size >= MAX_PER_SOCKET)
        throw new InvalidRequestError([
          { path: "/id", message: `a socket runs at most ${MAX_PER_SOCKET} generations at once` },
        ]);
      await admission.countRequest(request);
      const ticket = await admission.submit(request, body, (step) =>
        outbox.send({ type: "step", id, ...step }),
      );
      const record = recordOf(request)?.message();
      record?.add(ticket);
      tickets.set(id, ticket);
      outbox.send({ type: "accepted", id, seed: ticket.seed, spans: ticket.spans });
      ticket.result
        .then((result) => {
          outbox.send({ type: "done", ...result, id });
          record?.end(200);
        })
        .catch((error) => fail(id, error, record))
        .finally(() => tickets.delete(id));
      // It closed while the limits were looked up.
      if (socket.readyState !== socket.OPEN) ticket.cancel();
    };

    const cancel = ({ id }: Schemas["CancelMessage"]) => {
      const ticket = tickets.get(id);
      if (!ticket)
        throw new InvalidRequestError([
          { path: "/id", message: "names no running generation of this socket" },
        ]);
      ticket.cancel();
    };

    const dispatch = async (message: unknown) => {
      const type = (message as { type?: unknown } | null)?.type;
      if (type === "auth") return authenticate(valid(validators.auth(message)));
      if (keys && !request.key)
        throw new UnauthorizedError(
          'this server needs an API key: send {"type": "auth", "key": …} first',
          false,
        );
      if (type === "generate") return generate(valid(validators.generate(message)));
      if (type === "cancel") return cancel(valid(validators.cancel(message)));
      throw new InvalidRequestError([{ path: "/type", message: "must be generate, cancel or auth" }]);
    };

    const receive = async (data: string) => {
      let message: unknown;
      try {
        message = JSON.parse(data);
      } catch (error) {
        const detail = `the message cannot be parsed: ${(error as Error).message}`;
        return refuse(undefined, problem("invalid-json", detail));
      }
      try {
        await dispatch(message);
      } catch (error) {
        if (error instanceof UnauthorizedError) return expel(error);
        const id = (message as { id?: unknown } | null)?.id;
        fail(typeof id === "string" ? id : undefined, error);
      }
    };

    let last: Promise<void> = Promise.resolve();
    let waiting = 0;
    let flooded = false;
    socket.on("message", (data, isBinary) => {
      if (isBinary)
        return fail(
          undefined,
          new InvalidRequestError([{ path: "", message: "must be a text frame with JSON" }]),
        );
      if (++waiting > MAX_WAITING) {
        flooded = true;
        socket.pause();
      }
      // One after the other: a message may mean the generation of the one before it.
      last = last
        .then(() => receive(data.toString()))
        .finally(() => {
          if (--waiting > 0 || !flooded) return;
          flooded = false;
          socket.resume();
        });
    });
    socket.on("error", (error) => request.log.info({ err: error }, "socket failed"));
    socket.on("close", cancelRunning);
  };

  app.route({
    method: "GET",
    url: "/generate/stream",
    config: { access: "socket" },
    schema: schemaOf("stream"),
    handler: async () => {
      throw new UpgradeRequiredError(
        "open this address as a WebSocket, or POST /generate for a single answer",
      );
    },
    wsHandler: open,
  });
}
