/** The interface of the measured programs: the server and its peers. */

import type { PlannedCell, SideInfo } from "../report/types.ts";
import { closedLoop, timed } from "../traffic/closed.ts";
import type { Answer, Recorder } from "../traffic/recorder.ts";
import { type Ask, type Seeds, traffic } from "../traffic/traffic.ts";
import type { ServerWatch } from "./watch.ts";

/** Amount of load of one measurement. */
export type Amount =
  /** Closed loop: requests of each client. */
  | { rounds: number }
  /** Open loop: seconds in which requests arrive. */
  | { seconds: number };

/** The input of one measurement. */
export interface Job {
  cell: PlannedCell;
  amount: Amount;
  recorder: Recorder;
  seeds: Seeds;
  signal: AbortSignal;
  timeoutMs: number;
}

/** The duration of a measurement. */
export interface Taken {
  /** From the first request to the last answer. */
  seconds: number;
  /** Open loop: whether the server kept up. */
  keptUp?: boolean;
}

/** The server under test, or a peer. */
export interface Side {
  info: SideInfo;
  /** Undefined for a loop without a server. */
  watch?: ServerWatch;
  /** Send the load and record the answers. Rejects if the side has failed. */
  run(job: Job): Promise<Taken>;
  close(): Promise<void>;
}

/** A peer; `budgets` tells whether it has step budgets. */
export interface PeerSide extends Side {
  budgets: boolean;
}

/** Run a job of the closed loop through `send`. */
export async function runClosed(
  { cell, amount, recorder, seeds, signal, timeoutMs }: Job,
  send: (ask: Ask, signal: AbortSignal) => Promise<Answer>,
): Promise<Taken> {
  const { load, shapes } = cell;
  if (load.kind !== "closed" || !("rounds" in amount)) throw new TypeError("a closed loop takes rounds");
  const asks = traffic(shapes, seeds);
  const next = () => {
    const ask = asks.next().value;
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    return timed(ask, performance.now(), recorder, () => send(ask, limit));
  };
  const seconds = await closedLoop(load.clients, next, (round) => round < amount.rounds && !signal.aborted);
  return { seconds };
}
