/**
 * What comes in over a WebSocket: messages wait here for the one before them, in bounded number and bytes.
 *
 * This is the one owner of a socket's pausing. Whatever else has a reason to read no further (a client that does not
 * read its answers, one that has been expelled) tells it here, so that no reason lifts another.
 */

import type { WebSocket } from "ws";
import { turn } from "../json.ts";

/** Messages of one socket that may wait. */
const MAX_WAITING = 256;

/**
 * A paused socket still hands on what was read before. Compressed, that may be much: beyond so many times the bytes that
 * may wait, the socket is given up.
 */
const MOST_FACTOR = 4;

/** A message as it came. */
export interface Message {
  data: Buffer;
  isBinary: boolean;
}

/** What an intake works with. */
export interface IntakeOptions {
  /** Bytes of messages that may wait: at least those of the largest message. */
  maxBytes: number;
  /** Carries out one message. Never rejects. */
  receive(message: Message): Promise<void>;
  /** True while nothing more is to be taken in, whatever waits; call `update` when this changes. */
  blocked(): boolean;
  /** More waits than a client can have meant; called once. */
  flooded(): void;
}

/** The messages of one socket, in order, and whether it is read. */
export class Intake {
  readonly #waiting: Message[] = [];
  #bytes = 0;
  #working = false;
  #ended = false;

  constructor(
    readonly socket: Pick<WebSocket, "pause" | "resume" | "isPaused">,
    readonly options: IntakeOptions,
  ) {}

  /** Takes a message in; it is carried out after those before it. */
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

  /** Goes on with what waits if it may, and reads from the socket only while there is room. */
  update(): void {
    const { socket, options } = this;
    const { length } = this.#waiting;
    const full = length > MAX_WAITING || this.#bytes > options.maxBytes;
    // Once full, all that waits is carried out before more is read.
    const paused = this.#ended || options.blocked() || full || (socket.isPaused && length > 0);
    if (paused && !socket.isPaused) socket.pause();
    if (!paused && socket.isPaused) socket.resume();
    if (!this.#working && length > 0) void this.#work();
  }

  /** Reads nothing more, and forgets what waits. */
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
