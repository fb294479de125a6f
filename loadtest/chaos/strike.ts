/** Causes one fault and measures the recovery. */

import { setTimeout as sleep } from "node:timers/promises";
import type { LogLine, Server } from "../servers/server.ts";
import { FAULTS, type FaultKind, relieve } from "./faults.ts";

/** A fault and its effect. Milliseconds count from the fault. */
export interface Struck {
  kind: FaultKind;
  /** Seconds after the start of the run. */
  at: number;
  /** Whether the worker was replaced. */
  effect: boolean;
  /** Until the server noticed the fault. */
  noticedMs: number;
  /** Until another process had loaded the model. */
  recoveredMs: number;
  /** The cause in the server's log. */
  said: string;
}

/** Milliseconds to wait for an effect; a process with a memory limit may never need more. */
const PATIENCE_MS: Record<FaultKind, number> = { kill: 20_000, freeze: 20_000, nan: 20_000, memory: 5_000 };

/** Cause a fault in one worker and wait until another has replaced it. */
export async function strike(server: Server, kind: FaultKind, pid: number, at: number): Promise<Struck> {
  const struck: Struck = { kind, at, effect: false, noticedMs: 0, recoveredMs: 0, said: "" };
  const started = performance.now();
  const listen = (line: LogLine) => {
    const now = performance.now() - started;
    if (line.workerPid === pid && line.msg.startsWith("worker died")) {
      struck.noticedMs = now;
      struck.said = /\((.*)\)/.exec(line.msg)?.[1] ?? "";
    }
    if (line.previousPid === pid) {
      struck.recoveredMs = now;
      struck.effect = true;
    }
  };
  server.on("log", listen);
  try {
    // Once the server has noticed the fault, it takes as long as a kill.
    const late = () => performance.now() - started > PATIENCE_MS[struck.noticedMs > 0 ? "kill" : kind];
    await FAULTS[kind](pid);
    while (!struck.effect && server.alive && !late()) await sleep(10);
  } catch (error) {
    // The process may have ended just now.
    struck.said = (error as Error).message;
  } finally {
    server.off("log", listen);
    if (!struck.effect && kind === "memory") await relieve(pid);
  }
  return struck;
}

/** Watch /readyz; `stop` returns the milliseconds of each interval in which it was not 200. */
export function watchReadiness(server: Server): { stop(): Promise<number[]> } {
  const gaps: number[] = [];
  let over = false;
  const watching = (async () => {
    let since: number | undefined;
    while (!over) {
      const ready = await server.ready();
      const now = performance.now();
      if (!ready) since ??= now;
      else if (since !== undefined) {
        gaps.push(now - since);
        since = undefined;
      }
      await sleep(50);
    }
    if (since !== undefined) gaps.push(performance.now() - since);
  })();
  return {
    async stop() {
      over = true;
      await watching;
      return gaps;
    },
  };
}
