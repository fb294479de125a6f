/**
 * The incoming messages of a WebSocket, handled one after the other, with bounds on their number and bytes.
 *
 * The intake is the one owner of pausing and resuming its socket. Other reasons to pause (a client that does
 * not read its answers, a socket that is being closed) go through `blocked` and `end`.
 */

import type { WebSocket } from "ws";
import { turn } from "../json.ts";

/** Most messages of one socket that wait. */
const MAX_WAITING = 256;

/**
 * Factor on the bytes that may wait, above which the socket is closed. A paused socket still emits messages
 * that were read before, and compressed ones may be large.
 */
const MOST_FACTOR = 4;

/** A message as received. */
export interface Message {
  data: Buffer;
  isBinary: boolean;
}

/** Options of an intake. */
export interface IntakeOptions {
  /** Most bytes of messages that wait; at least the size of the largest message. */
  maxBytes: number;
  /** Handle one message. Must not reject. */
  receive(message: Message): Promise<void>;
  /** Return true while no message may be handled; call `update` when this changes. */
  blocked(): boolean;
  /** Called once, when far too many bytes wait. */
  flooded(): void;
}

/** Handles the messages of one socket in order, and pauses the socket. */
export class Intake {
  readonly #waiting: Message[] = [];
  #bytes = 0;
  #working = false;
  #ended = false;

  constructor(
    readonly socket: Pick<WebSocket, "pause" | "resume" | "isPaused">,
    readonly options: IntakeOptions,
  ) {}

  /** Add a message; it is handled after the earlier ones. */
  push(message: Message): void {
    if (this.#ended) return;
    this.#waiting.push(message);
    this.#bytes += message.data.length;
    if (this.#bytes > MOST_FACTOR * this.options.maxBytes) {
      this.end();
      this.options.flooded();
      return;
    }
    this.update();
  }

  /** Handle waiting messages unless blocked, and read from the socket only while there is room. */
  update(): void {
    const { socket, options } = this;
    const { length } = this.#waiting;
    const full = length > MAX_WAITING || this.#bytes > options.maxBytes;
    // Once full, handle all waiting messages before reading again.
    const paused = this.#ended || options.blocked() || full || (socket.isPaused && length > 0);
    if (paused && !socket.isPaused) socket.pause();
    if (!paused && socket.isPaused) socket.resume();
    if (!this.#working && length > 0) void this.#work();
  }

  /** Discard the waiting messages and stop reading. */
  end(): void {
    this.#ended = true;
    this.#waiting.length = 0;
    this.#bytes = 0;
    this.socket.pause();
  }

  async #work(): Promise<void> {
    this.#working = true;
    while (!this.#ended && !this.options.blocked()) {
      const message = this.#waiting.shift();
      if (message === undefined) break;
      await this.options.receive(message);
      const { length } = message.data;
      this.#bytes = Math.max(0, this.#bytes - length);
      if (this.#waiting.length > 0) await turn(length);
    }
    this.#working = false;
    if (!this.#ended && this.socket.isPaused && !this.options.blocked()) this.update();
  }
}
