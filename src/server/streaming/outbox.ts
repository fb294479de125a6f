/**
 * The outgoing events of a client, bounded for slow readers.
 *
 * While more than MOST_WAITING bytes wait, the outbox is congested: it holds steps back and merges them, one
 * event for each sample. Every reveal that was not masked again meanwhile still arrives exactly once.
 */

import type { Schemas } from "../openapi.ts";

export type ServerEvent = Schemas["ServerEvent"];
type StepEvent = Schemas["StepEvent"];

/** Bytes that may wait before steps are merged. */
export const MOST_WAITING = 256 * 1024;

/** Destination of events. */
export interface Sink {
  /** False once nothing more can be written. */
  readonly open: boolean;
  /** Bytes written and not yet sent. */
  readonly waiting: number;
  /** Write an event; `sent` is called when it has been handed to the network. */
  write(event: ServerEvent, sent: () => void): void;
}

/** Sends events in order. */
export class Outbox {
  /** Merged steps that are held back, by request and sample. */
  readonly #held = new Map<string, StepEvent>();

  /** `changed` is called when `congested` may have changed. */
  constructor(
    readonly sink: Sink,
    readonly changed: () => void = () => {},
  ) {}

  /** Send an event, or hold a step back. Does nothing once the client is gone. */
  send(event: ServerEvent): void {
    if (!this.sink.open) return;
    if (event.type === "step" && this.congested) {
      this.#hold(event);
      return;
    }
    if ("id" in event) this.#flush(`${event.id}/`);
    this.#write(event);
  }

  /** Whether more bytes wait than the client reads. */
  get congested(): boolean {
    return this.sink.waiting > MOST_WAITING;
  }

  #hold(event: StepEvent): void {
    const key = `${event.id}/${event.sample}`;
    const held = this.#held.get(key);
    this.#held.set(key, held ? merged(held, event) : event);
  }

  /** Write the held steps whose key starts with `prefix`. */
  #flush(prefix: string): void {
    for (const [key, event] of this.#held)
      if (key.startsWith(prefix)) {
        this.#held.delete(key);
        this.#write(event);
      }
  }

  #write(event: ServerEvent): void {
    this.sink.write(event, () => {
      if (this.congested) return;
      this.#flush("");
      this.changed();
    });
    if (this.congested) this.changed();
  }
}

/** Return one event for two steps of a sample, with what both change together. */
function merged(first: StepEvent, second: StepEvent): StepEvent {
  const { remasked } = second;
  if (!remasked) return { ...second, revealed: [...first.revealed, ...second.revealed] };
  const changed = new Set([...second.revealed.map(({ position }) => position), ...remasked]);
  const stands = (position: number) => !changed.has(position);
  return {
    ...second,
    revealed: [...first.revealed.filter(({ position }) => stands(position)), ...second.revealed],
    remasked: [...(first.remasked ?? []).filter(stands), ...remasked],
  };
}
