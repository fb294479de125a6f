/** What is measured: the server, or a peer. */

import type { PlannedCell, SideInfo } from "../report/types.ts";
import type { Recorder } from "../traffic/recorder.ts";
import type { Seeds } from "../traffic/traffic.ts";
import type { ServerWatch } from "./watch.ts";

/** How much load one measurement makes. */
export type Amount =
  /** Closed loop: requests of each client. */
  | { rounds: number }
  /** Open loop: seconds in which requests arrive. */
  | { seconds: number };

/** What a side is given for one measurement. */
export interface Job {
  cell: PlannedCell;
  amount: Amount;
  recorder: Recorder;
  seeds: Seeds;
  signal: AbortSignal;
  timeoutMs: number;
}

/** What a side says of a measurement beside what it recorded. */
export interface Taken {
  /** From the first request to the last answer. */
  seconds: number;
  /** Of an open loop. */
  keptUp?: boolean;
}

/** The server under test, or a peer. */
export interface Side {
  info: SideInfo;
  /** Undefined for a loop without a server. */
  watch?: ServerWatch;
  /** Makes the load and records what comes back. Rejects where the side cannot go on. */
  run(job: Job): Promise<Taken>;
  close(): Promise<void>;
}
