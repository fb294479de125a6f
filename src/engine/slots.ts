/** Which calls the runtime processes have: each runs one, and may have another that waits behind it. */

import type { Clock } from "./clock.ts";

/** What share of the time that a call is expected to take has passed when the next one may be sent. */
export const SENT_AHEAD_AT = 0.85;

/** A call that a process has. */
export interface Sent {
  readonly expectedMs: number;
  /** When the process was free for it, clock time; not yet known of a call that waits behind another. */
  since?: number;
  /** The call that waits behind it. */
  next?: Sent | undefined;
  answered?: boolean;
  /** Takes back that it is asked for a next one. */
  cancel?: () => void;
}

/** Counts the calls that run, and asks for the next one in time. */
export class Slots {
  #running = 0;

  constructor(
    /** Runtime processes. */
    readonly size: number,
    readonly clock: Clock,
    /** Asked shortly before a call ends, so that its process need not wait for the next one. */
    readonly sendNext: () => Sent | undefined,
  ) {}

  /** True while a process has no call. */
  get isFree(): boolean {
    return this.#running < this.size;
  }

  /** A process has nothing before this call since a moment of the clock. */
  begin(sent: Sent, since: number): void {
    this.#running++;
    sent.since = since;
    const left = SENT_AHEAD_AT * sent.expectedMs - (this.clock.now() - since);
    sent.cancel = this.clock.setTimeout(() => {
      sent.next = this.sendNext();
    }, left);
  }

  /** A call is over; the one behind it begins, unless it is over too: the other may have been tried again, after it. */
  end(sent: Sent, answeredAt: number): void {
    sent.answered = true;
    sent.cancel?.();
    if (sent.since !== undefined) this.#running--;
    if (sent.next && !sent.next.answered) this.begin(sent.next, answeredAt);
  }
}
