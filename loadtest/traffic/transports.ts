/** Sends requests over each transport and checks the answers. */

import { WebSocket } from "ws";
import { problemError } from "../../src/client/error.ts";
import { DidiClient, type StreamEvent } from "../../src/client/index.ts";
import type { GenerateResponse, ServerEvent } from "../../src/client/types.ts";
import type { Transport } from "../report/types.ts";
import { type CheckedRequest, checkAnswer, StreamChecker } from "./checker.ts";
import { Fault } from "./fault.ts";
import { keyHeaders, post } from "./http.ts";
import type { Answer } from "./recorder.ts";

/**
 * Sends a request and resolves with the figures of the answer. Rejects with Fault, DidiError or the signal's
 * reason.
 */
export type Send = (request: CheckedRequest, signal: AbortSignal) => Promise<Answer>;

/** Return the figures of an answer. */
export function answerOf({ usage, timing }: GenerateResponse): Answer {
  return {
    tokens: usage.completion_tokens,
    passes: {
      student: usage.student_passes,
      discriminator: usage.discriminator_passes,
      gradient: usage.gradient_passes,
    },
    queueMs: timing.queue_ms,
  };
}

/** Times and checks the events of a stream; its clock starts with the constructor. */
class Watch {
  readonly #checker: StreamChecker;
  readonly #started = performance.now();
  #last: number | undefined;
  #first: number | undefined;
  readonly #gaps: number[] = [];
  #answer: Answer | undefined;

  constructor(request: CheckedRequest) {
    this.#checker = new StreamChecker(request);
  }

  push(event: StreamEvent): void {
    const now = performance.now();
    if (event.type === "step") {
      if (this.#last === undefined) this.#first = now - this.#started;
      else this.#gaps.push(now - this.#last);
      this.#last = now;
    }
    this.#checker.push(event);
    if (event.type === "done") this.#answer = answerOf(event);
  }

  end(): Answer {
    this.#checker.close();
    return {
      ...this.#answer!,
      ...(this.#first !== undefined && { firstStepMs: this.#first }),
      gapsMs: this.#gaps,
      mergedSteps: this.#checker.merged,
    };
  }
}

/** A pool of sockets, each with one request at a time, so that a slow request does not delay others. */
class Sockets {
  readonly #idle: WebSocket[] = [];

  constructor(readonly url: string) {}

  async #take(): Promise<WebSocket> {
    for (let socket = this.#idle.pop(); socket; socket = this.#idle.pop())
      if (socket.readyState === WebSocket.OPEN) return socket;
    const socket = new WebSocket(this.url, { headers: keyHeaders() });
    await new Promise((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", (error) => reject(new Fault("connection", error.message)));
    });
    return socket;
  }

  async send(request: CheckedRequest, signal: AbortSignal): Promise<Answer> {
    const watch = new Watch(request);
    const socket = await this.#take();
    const whole = new AbortController();
    try {
      await new Promise<void>((resolve, reject) => {
        const { signal: over } = whole;
        signal.addEventListener("abort", () => reject(signal.reason), { once: true, signal: over });
        signal.throwIfAborted();
        const broken = () => reject(new Fault("connection", "the socket closed before done"));
        socket.once("close", broken).once("error", broken);
        over.addEventListener("abort", () => socket.removeAllListeners());
        socket.on("message", (data) => {
          try {
            const event = JSON.parse(data.toString()) as ServerEvent;
            if (event.type === "error") throw problemError(event.error);
            // The answer to a key in a message, which this client does not send.
            if (event.type === "authenticated") return;
            watch.push(event);
            if (event.type === "done") resolve();
          } catch (error) {
            reject(error);
          }
        });
        socket.send(JSON.stringify({ type: "generate", id: String(request.seed), ...request }));
      });
      this.#idle.push(socket);
      return watch.end();
    } finally {
      whole.abort();
      socket.on("error", () => {});
      if (!this.#idle.includes(socket)) socket.terminate();
    }
  }

  close(): void {
    for (const socket of this.#idle) socket.terminate();
  }
}

/** The transports to one didi-serve. */
export class Transports {
  readonly #client: DidiClient;
  readonly #sockets: Sockets;

  constructor(readonly origin: string) {
    this.#client = new DidiClient(origin, { retry: { retries: 0 }, headers: keyHeaders() });
    this.#sockets = new Sockets(`${origin.replace(/^http/, "ws")}/generate/stream`);
  }

  send(transport: Exclude<Transport, "none">): Send {
    switch (transport) {
      case "post":
        return async (request, signal) => {
          const { status, body } = await post(`${this.origin}/generate`, request, {
            headers: keyHeaders(),
            signal,
          });
          if (status !== 200) throw new Fault(`status ${status}`);
          const answer = JSON.parse(body) as GenerateResponse;
          checkAnswer(request, answer);
          return answerOf(answer);
        };
      case "sse":
        return async (request, signal) => {
          const watch = new Watch(request);
          for await (const event of this.#client.stream(request, { signal })) watch.push(event);
          return watch.end();
        };
      case "ws":
        return (request, signal) => this.#sockets.send(request, signal);
    }
  }

  close(): void {
    this.#sockets.close();
  }
}
