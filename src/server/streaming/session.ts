/** One WebSocket of /generate/stream: who it belongs to, and the generations that run on it. */

import type { FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import type { RequestHandle } from "../../engine/engine.ts";
import { InvalidRequestError, LimitReachedError, UnauthorizedError } from "../../errors.ts";
import type { Admission } from "../access/admission.ts";
import { knownKey } from "../access/guard.ts";
import type { ApiKey, KeyRing } from "../access/keys.ts";
import { parseJson } from "../json.ts";
import { type Schemas, valid, validator } from "../openapi.ts";
import { type ProblemAnswer, problem, toProblem } from "../problem.ts";
import { recordOf } from "../telemetry/record.ts";
import { Intake, type Message } from "./intake.ts";
import { Outbox } from "./outbox.ts";
import { isFar, socketSink } from "./websocket.ts";

/** Generations that one socket may have running. */
const MAX_PER_SOCKET = 64;

/** Bytes of the one message that a socket without a key may send: a key has at most 112. */
const MAX_AUTH_BYTES = 1024;

/** Bytes, frames and all, that are read from a socket before it has brought a key; then nothing more is. */
const MAX_STRANGE_BYTES = 16 * 1024;

/** Milliseconds that a peer has to take the news that it is expelled. */
const FAREWELL_MS = 500;

/** Characters of an id that are repeated to who sent it; the contract allows no longer one. */
const MAX_ID = 128;

/** Close code of a socket without a key: as 401 is in HTTP. */
const UNAUTHORIZED = 4401;
/** Close code of one that sends more than can be meant (RFC 6455). */
const POLICY = 1008;

const validators = {
  auth: validator("AuthMessage"),
  generate: validator("GenerateMessage"),
  cancel: validator("CancelMessage"),
};

/** Settings of a socket. */
export interface StreamSessionOptions {
  admission: Admission;
  /** Absent: no key is asked for. */
  keys: KeyRing | undefined;
  /** Milliseconds in which a socket without a key must bring one. */
  authMs: number;
  /** Bytes of the largest message. */
  maxMessageBytes: number;
}

/** Serves a socket until it closes. */
export class StreamSession {
  readonly #handles = new Map<string, RequestHandle>();
  readonly #outbox: Outbox;
  readonly #intake: Intake;
  readonly #late: NodeJS.Timeout;
  /** Bytes that came while no key had. */
  #strangeBytes = 0;
  #expelled = false;

  constructor(
    readonly socket: WebSocket,
    readonly request: FastifyRequest,
    readonly options: StreamSessionOptions,
  ) {
    const { authMs, maxMessageBytes } = options;
    this.#outbox = new Outbox(socketSink(socket, isFar(request.raw)), () => this.#intake.update());
    this.#intake = new Intake(socket, {
      maxBytes: maxMessageBytes,
      receive: (data) => this.#receive(data),
      blocked: () => this.#outbox.congested || this.#strangeBytes > MAX_STRANGE_BYTES,
      flooded: () => this.#end(POLICY, "too many messages wait"),
    });
    this.#late = setTimeout(
      () => this.#expel(new UnauthorizedError(`no key came within ${authMs} ms: send it first`, false)),
      authMs,
    );
    if (!this.#strange) clearTimeout(this.#late);
    else request.raw.socket.on("data", this.#countStrange);
    if (request.key) this.#enter(request.key);
    socket.on("message", (data, isBinary) => this.#take(data as Buffer, isBinary));
    socket.on("error", (error) => request.log.info({ err: error }, "socket failed"));
    socket.once("close", () => {
      clearTimeout(this.#late);
      this.#cancelRunning();
    });
  }

  /** Whether a key is asked for and none has come. */
  get #strange(): boolean {
    return this.options.keys !== undefined && this.request.key === null;
  }

  // A message that is not whole yet is seen by nobody else.
  readonly #countStrange = ({ length }: Buffer) => {
    this.#strangeBytes += length;
    if (this.#strangeBytes <= MAX_STRANGE_BYTES) return;
    this.#intake.update();
    // What came may hold a key and still be decompressed.
    setTimeout(() => this.#strange && this.#expel(new UnauthorizedError(HOW, false)), FAREWELL_MS).unref();
  };

  #take(data: Buffer, isBinary: boolean): void {
    if (this.#expelled) return;
    if (this.#strange) this.#authenticate(data, isBinary);
    else this.#intake.push({ data, isBinary });
  }

  /** The first message of a socket without a key, at once: it brings the key, or the socket is closed. */
  #authenticate(data: Buffer, isBinary: boolean): void {
    try {
      if (isBinary || data.length > MAX_AUTH_BYTES) throw new Error("it is no message with a key");
      const { key } = valid(validators.auth(parseJson(data)));
      this.#enter(knownKey(this.options.keys!, key));
    } catch (error) {
      this.#expel(error instanceof UnauthorizedError ? error : new UnauthorizedError(HOW, false));
    }
    if (this.#expelled) return;
    clearTimeout(this.#late);
    this.request.raw.socket.removeListener("data", this.#countStrange);
    this.#strangeBytes = 0;
    this.#outbox.send({ type: "authenticated" });
    this.#intake.update();
  }

  #enter(key: ApiKey): void {
    const { request, socket } = this;
    request.key = key;
    const revoked = () => this.#expel(new UnauthorizedError("the API key was removed", true));
    // It may have been, while the handshake was on its way.
    if (key.revoked.aborted) revoked();
    key.revoked.addEventListener("abort", revoked);
    socket.once("close", () => key.revoked.removeEventListener("abort", revoked));
  }

  /** Sends a stranger away, whatever is running. */
  #expel(error: UnauthorizedError): void {
    if (this.#expelled) return;
    this.#fail(undefined, error);
    this.#end(UNAUTHORIZED, "unauthorized");
  }

  /** Closes the socket and reads nothing more from it, not even that its peer closes it too. */
  #end(code: number, reason: string): void {
    this.#expelled = true;
    this.socket.close(code, reason);
    this.#intake.end();
    this.#cancelRunning();
    setTimeout(() => this.socket.terminate(), FAREWELL_MS);
  }

  #cancelRunning(): void {
    for (const handle of this.#handles.values()) handle.cancel();
  }

  /** Carries out one message, or answers why not. */
  async #receive({ data, isBinary }: Message): Promise<void> {
    let id: unknown;
    let over: LimitReachedError | undefined;
    try {
      // Counted whatever it is: what cannot be used costs as much to find out.
      over = await this.#countMessage();
      // The limit may not keep a client from ending what it has begun.
      if (over && data.length > MAX_AUTH_BYTES) throw over;
      if (isBinary) throw invalid("", "must be a text frame with JSON");
      const message = parseJson(data);
      const named = (message ?? {}) as { type?: unknown; id?: unknown };
      ({ id } = named);
      if (over && named.type !== "cancel") throw over;
      await this.#dispatch(named.type, message);
    } catch (error) {
      if (error instanceof UnauthorizedError) return this.#expel(error);
      const told = error instanceof SyntaxError && over ? over : error;
      this.#fail(typeof id === "string" && id.length <= MAX_ID ? id : undefined, told);
    }
  }

  /** The error of the limit that is reached; undefined if none is. */
  async #countMessage(): Promise<LimitReachedError | undefined> {
    try {
      await this.options.admission.countRequest(this.request);
      return undefined;
    } catch (error) {
      if (error instanceof LimitReachedError) return error;
      throw error;
    }
  }

  async #dispatch(type: unknown, message: unknown): Promise<void> {
    if (type === "generate") return this.#generate(valid(validators.generate(message)));
    if (type === "cancel") return this.#cancel(valid(validators.cancel(message)));
    if (type === "auth") return this.#authenticateAgain(valid(validators.auth(message)));
    throw invalid("/type", "must be generate, cancel or auth");
  }

  /** A key on a socket that needs none any more: its own changes nothing, another is a mistake. */
  #authenticateAgain({ key }: Schemas["AuthMessage"]): void {
    const { keys } = this.options;
    if (keys && knownKey(keys, key) !== this.request.key)
      throw invalid("/key", "is another key than that of this socket: open a socket for each key");
    this.#outbox.send({ type: "authenticated" });
  }

  async #generate({ type: _, id, ...body }: Schemas["GenerateMessage"]): Promise<void> {
    const { request } = this;
    const handles = this.#handles;
    if (handles.has(id)) throw invalid("/id", `${id} is still running on this socket`);
    if (handles.size >= MAX_PER_SOCKET)
      throw invalid("/id", `a socket runs at most ${MAX_PER_SOCKET} generations at once`);
    const handle = await this.options.admission.submit(request, body, (step) =>
      this.#outbox.send({ type: "step", id, ...step }),
    );
    const record = recordOf(request)?.message();
    record?.add(handle);
    handles.set(id, handle);
    this.#outbox.send({ type: "accepted", id, seed: handle.seed, spans: handle.spans });
    handle.result
      .then((result) => {
        this.#outbox.send({ type: "done", ...result, id });
        record?.end(200);
      })
      .catch((error) => this.#fail(id, error, record))
      .finally(() => handles.delete(id));
    // It closed while the limits were looked up.
    if (this.socket.readyState !== this.socket.OPEN) handle.cancel();
  }

  #cancel({ id }: Schemas["CancelMessage"]): void {
    const handle = this.#handles.get(id);
    if (!handle) throw invalid("/id", "names no running generation of this socket");
    handle.cancel();
  }

  #fail(id: string | undefined, error: unknown, record = recordOf(this.request)?.message()): void {
    const { problem, bug } = error instanceof SyntaxError ? notJson(error) : toProblem(error);
    if (bug) this.request.log.error({ err: error }, "generation failed");
    record?.fail(problem);
    record?.end(problem.status);
    const told = { ...problem, request_id: this.request.id };
    this.#outbox.send({ type: "error", ...(id !== undefined && { id }), error: told });
  }
}

const notJson = ({ message }: SyntaxError): ProblemAnswer => ({
  problem: problem("invalid-json", `the message cannot be parsed: ${message}`),
  bug: false,
});

const HOW = `this server needs an API key: send {"type": "auth", "key": …} first, in at most ${MAX_AUTH_BYTES} bytes`;

const invalid = (path: string, message: string) => new InvalidRequestError([{ path, message }]);
