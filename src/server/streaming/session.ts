/** One WebSocket of /generate/stream: its API key and its running requests. */

import type { FastifyRequest } from "fastify";
import type { WebSocket } from "ws";
import { invalid, LimitReachedError, UnauthorizedError } from "../../errors.ts";
import type { Admission, Submission } from "../access/admission.ts";
import { knownKey } from "../access/guard.ts";
import type { ApiKey, KeyRing } from "../access/keys.ts";
import { parseJson } from "../json.ts";
import { type Schemas, valid, validator } from "../openapi.ts";
import { type ProblemAnswer, problem, toProblem } from "../problem.ts";
import { recordOf } from "../telemetry/record.ts";
import { Intake, type Message } from "./intake.ts";
import { Outbox } from "./outbox.ts";
import { isFar, socketSink } from "./websocket.ts";

/** Most running requests of one socket. */
const MAX_PER_SOCKET = 64;

/** Largest message with a key, in bytes; a key has at most 112. */
const MAX_AUTH_BYTES = 1024;

/** Bytes, frames included, that are read from a socket before its key has come. */
const MAX_UNAUTHENTICATED_BYTES = 16 * 1024;

/** Milliseconds between the close frame and closing the connection. */
const CLOSE_MS = 500;

/** Longest id, in characters, that an error quotes: the limit of the contract. */
const MAX_ID = 128;

/** Close code of a socket without a valid key, after HTTP's 401. */
const UNAUTHORIZED = 4401;
/** Close code of a socket that sends far too much (RFC 6455). */
const POLICY = 1008;

const validators = {
  auth: validator("AuthMessage"),
  generate: validator("GenerateMessage"),
  cancel: validator("CancelMessage"),
};

/** Settings of a socket. */
export interface StreamSessionOptions {
  admission: Admission;
  /** Absent: no key is required. */
  keys: KeyRing | undefined;
  /** Milliseconds in which a socket without a key must send one. */
  authMs: number;
  /** Largest message in bytes. */
  maxMessageBytes: number;
}

/** Serves one socket until it closes. */
export class StreamSession {
  /** Running requests, and those that wait for their model, by the client's ids. */
  readonly #requests = new Map<string, AbortController>();
  readonly #outbox: Outbox;
  readonly #intake: Intake;
  readonly #late: NodeJS.Timeout;
  /** Bytes received before a key. */
  #unauthenticatedBytes = 0;
  #closing = false;

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
      blocked: () => this.#outbox.congested || this.#unauthenticatedBytes > MAX_UNAUTHENTICATED_BYTES,
      flooded: () => this.#close(POLICY, "too many messages wait"),
    });
    this.#late = setTimeout(
      () => this.#refuse(new UnauthorizedError(`no key came within ${authMs} ms: send it first`, false)),
      authMs,
    );
    if (!this.#unauthenticated) clearTimeout(this.#late);
    else request.raw.socket.on("data", this.#countUnauthenticated);
    if (request.key) this.#enter(request.key);
    socket.on("message", (data, isBinary) => this.#take(data as Buffer, isBinary));
    socket.on("error", (error) => request.log.info({ err: error }, "socket failed"));
    socket.once("close", () => {
      clearTimeout(this.#late);
      this.#cancelRunning();
    });
  }

  /** Whether a key is required and none has come. */
  get #unauthenticated(): boolean {
    return this.options.keys !== undefined && this.request.key === null;
  }

  /** Counts the bytes of the connection: an incomplete message emits no event. */
  readonly #countUnauthenticated = ({ length }: Buffer) => {
    this.#unauthenticatedBytes += length;
    if (this.#unauthenticatedBytes <= MAX_UNAUTHENTICATED_BYTES) return;
    this.#intake.update();
    // A message with a key may have been read already and be decompressing.
    setTimeout(() => {
      if (this.#unauthenticated) this.#refuse(new UnauthorizedError(HOW, false));
    }, CLOSE_MS).unref();
  };

  #take(data: Buffer, isBinary: boolean): void {
    if (this.#closing) return;
    if (this.#unauthenticated) this.#authenticate(data, isBinary);
    else this.#intake.push({ data, isBinary });
  }

  /**
   * Handle the first message of a socket without a key: it must hold the key, otherwise the socket is closed.
   */
  #authenticate(data: Buffer, isBinary: boolean): void {
    try {
      if (isBinary || data.length > MAX_AUTH_BYTES) throw new Error("not a message with a key");
      const { key } = valid(validators.auth(parseJson(data)));
      this.#enter(knownKey(this.options.keys!, key));
    } catch (error) {
      this.#refuse(error instanceof UnauthorizedError ? error : new UnauthorizedError(HOW, false));
    }
    if (this.#closing) return;
    clearTimeout(this.#late);
    this.request.raw.socket.removeListener("data", this.#countUnauthenticated);
    this.#unauthenticatedBytes = 0;
    this.#outbox.send({ type: "authenticated" });
    this.#intake.update();
  }

  #enter(key: ApiKey): void {
    const { request, socket } = this;
    request.key = key;
    const revoked = () => this.#refuse(new UnauthorizedError("the API key was revoked", true));
    // The key may have been revoked during the handshake.
    if (key.revoked.aborted) revoked();
    key.revoked.addEventListener("abort", revoked);
    socket.once("close", () => key.revoked.removeEventListener("abort", revoked));
  }

  /** Send an error and close the socket with its running requests. */
  #refuse(error: UnauthorizedError): void {
    if (this.#closing) return;
    this.#fail(undefined, error);
    this.#close(UNAUTHORIZED, "unauthorized");
  }

  /** Close the socket without reading from it again, not even the client's close frame. */
  #close(code: number, reason: string): void {
    this.#closing = true;
    this.socket.close(code, reason);
    this.#intake.end();
    this.#cancelRunning();
    setTimeout(() => this.socket.terminate(), CLOSE_MS);
  }

  #cancelRunning(): void {
    for (const controller of this.#requests.values()) controller.abort();
  }

  /** Handle one message, or answer with its error. */
  async #receive({ data, isBinary }: Message): Promise<void> {
    let id: unknown;
    let over: LimitReachedError | undefined;
    try {
      // Invalid messages count as well: checking them costs as much.
      over = await this.#countMessage();
      // A client above its limit may still cancel its requests; a cancel message is short.
      if (over && data.length > MAX_AUTH_BYTES) throw over;
      if (isBinary) throw invalid("", "must be a text frame with JSON");
      const message = parseJson(data);
      const named = (message ?? {}) as { type?: unknown; id?: unknown };
      ({ id } = named);
      if (over && named.type !== "cancel") throw over;
      await this.#dispatch(named.type, message);
    } catch (error) {
      if (error instanceof UnauthorizedError) return this.#refuse(error);
      const cause = error instanceof SyntaxError && over ? over : error;
      this.#fail(typeof id === "string" && id.length <= MAX_ID ? id : undefined, cause);
    }
  }

  /** Count a message; return the error if it exceeds a limit of the key. */
  async #countMessage(): Promise<LimitReachedError | undefined> {
    try {
      await this.options.admission.usage.countRequest(this.request.key);
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

  /** Answer a key on a socket that has one: the same key is accepted, another one is an error. */
  #authenticateAgain({ key }: Schemas["AuthMessage"]): void {
    const { keys } = this.options;
    if (keys && knownKey(keys, key) !== this.request.key)
      throw invalid("/key", "is another key than that of this socket: open a socket for each key");
    this.#outbox.send({ type: "authenticated" });
  }

  /** Start a request; resolve when it is accepted, or waits for its model. */
  async #generate({ type: _, id, ...body }: Schemas["GenerateMessage"]): Promise<void> {
    const requests = this.#requests;
    const { admission } = this.options;
    if (requests.has(id)) throw invalid("/id", `${id} belongs to a running request of this socket`);
    if (requests.size >= MAX_PER_SOCKET)
      throw invalid("/id", `exceeds the ${MAX_PER_SOCKET} running requests of a socket: open another socket`);
    const waits = !admission.models.find(body.model).isOpen;
    const controller = new AbortController();
    requests.set(id, controller);
    const accepted = new Promise<void>((accept, refuse) => {
      admission
        .use(this.request, body.model, controller.signal, async (submission) => {
          await this.#run(id, body, submission, controller.signal, accept);
        })
        .catch(refuse)
        .finally(() => requests.delete(id));
    });
    if (!waits) return accepted;
    // Other messages, such as a cancel, are handled while the model is loaded.
    accepted.catch((error) => this.#fail(id, error));
  }

  /** Run a request to its end. Rejects with the errors of `submit`. */
  async #run(
    id: string,
    body: Omit<Schemas["GenerateMessage"], "type" | "id">,
    submission: Submission,
    signal: AbortSignal,
    accept: () => void,
  ): Promise<void> {
    const handle = await submission.submit(body, (step) => this.#outbox.send({ type: "step", id, ...step }));
    const record = recordOf(this.request)?.message();
    record?.add(handle);
    this.#outbox.send({ type: "accepted", id, seed: handle.seed, spans: handle.spans });
    // The socket may have closed while the limits were looked up.
    if (signal.aborted || this.socket.readyState !== this.socket.OPEN) handle.cancel();
    signal.addEventListener("abort", () => handle.cancel());
    accept();
    try {
      this.#outbox.send({ type: "done", ...(await handle.result), id });
      record?.end(200);
    } catch (error) {
      this.#fail(id, error, record);
    }
  }

  #cancel({ id }: Schemas["CancelMessage"]): void {
    const controller = this.#requests.get(id);
    if (!controller) throw invalid("/id", "is not the id of a running request of this socket");
    controller.abort();
  }

  #fail(id: string | undefined, error: unknown, record = recordOf(this.request)?.message()): void {
    const { problem, bug } = error instanceof SyntaxError ? notJson(error) : toProblem(error);
    if (bug) this.request.log.error({ err: error }, "request failed");
    record?.fail(problem);
    record?.end(problem.status);
    const answer = { ...problem, request_id: this.request.id };
    this.#outbox.send({ type: "error", ...(id !== undefined && { id }), error: answer });
  }
}

const notJson = ({ message }: SyntaxError): ProblemAnswer => ({
  problem: problem("invalid-json", `the message cannot be parsed: ${message}`),
  bug: false,
});

const HOW =
  "this server requires an API key: send " +
  `{"type": "auth", "key": …} first, in at most ${MAX_AUTH_BYTES} bytes`;
