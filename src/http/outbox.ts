/**
 * What goes out on a socket, bounded for a reader that falls behind.
 *
 * While more than LIMIT bytes wait in the socket, steps are held back and merged, one for each sample,
 * and nothing more is read from the client. Every reveal still arrives exactly once.
 */

import type { WebSocket } from "ws";
import type { Schemas } from "./openapi.ts";

type ServerEvent = Schemas["ServerEvent"];
type StepEvent = Schemas["StepEvent"];

/** Bytes that may wait in a socket before steps are merged. */
const LIMIT = 256 * 1024;

/** Sends events in order over one socket. */
export class Outbox {
  /** Merged steps that wait, by generation and sample. */
  readonly #held = new Map<string, StepEvent>();

  constructor(readonly socket: WebSocket) {}

  /** Sends an event, or holds a step back. Does nothing once the socket is closing. */
  send(event: ServerEvent): void {
    if (this.socket.readyState !== this.socket.OPEN) return;
    if (event.type === "step" && this.#congested) {
      this.#hold(event);
      return;
    }
    if ("id" in event) this.#flush(`${event.id}/`);
    this.#write(event);
  }

  get #congested(): boolean {
    return this.socket.bufferedAmount > LIMIT;
  }

  #hold(event: StepEvent): void {
    const key = `${event.id}/${event.sample}`;
    const held = this.#held.get(key);
    this.#held.set(key, held ? { ...event, revealed: [...held.revealed, ...event.revealed] } : event);
  }

  /** Writes held steps whose key starts with `prefix`. */
  #flush(prefix: string): void {
    for (const [key, event] of this.#held)
      if (key.startsWith(prefix)) {
        this.#held.delete(key);
        this.#write(event);
      }
  }

  #write(event: ServerEvent): void {
    this.socket.send(JSON.stringify(event), () => {
      if (this.#congested) return;
      this.#flush("");
      if (this.socket.isPaused) this.socket.resume();
    });
    if (this.#congested) this.socket.pause();
  }
}
