/** One fault, and how long the server took to be whole again. */

import { setTimeout as sleep } from "node:timers/promises";
import type { LogLine, Server } from "../servers/server.ts";
import { FAULTS, type FaultKind, relieve } from "./faults.ts";

/** A fault and what came of it. Milliseconds from its moment. */
export interface Struck {
  kind: FaultKind;
  /** Seconds into the run. */
  at: number;
  /** False if the process went on as if nothing were. */
  effect: boolean;
  /** Until the server saw it. */
  noticedMs: number;
  /** Until another process held the model. */
  recoveredMs: number;
  /** What the server said it was. */
  said: string;
}

/** How long an effect is waited for: a process that gets no more memory may not need any. */
const PATIENCE_MS: Record<FaultKind, number> = { kill: 20_000, freeze: 20_000, nan: 20_000, memory: 5_000 };

/** Strikes one process and waits until another has taken its place. */
export async function strike(server: Server, kind: FaultKind, pid: number, at: number): Promise<Struck> {
  const struck: Struck = { kind, at, effect: false, noticedMs: 0, recoveredMs: 0, said: "" };
  const started = performance.now();
  const listen = (line: LogLine) => {
    const now = performance.now() - started;
    if (line.runtimePid === pid && line.msg.startsWith("runtime process died")) {
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
    // Once it is felt, it is a fault like any other.
    const late = () => performance.now() - started > PATIENCE_MS[struck.noticedMs > 0 ? "kill" : kind];
    await FAULTS[kind](pid);
    while (!struck.effect && server.alive && !late()) await sleep(10);
  } catch (error) {
    // Such as a process that has just ended by itself.
    struck.said = (error as Error).message;
  } finally {
    server.off("log", listen);
    if (!struck.effect && kind === "memory") await relieve(pid);
  }
  return struck;
}

/** Looks at /readyz all the time; `stop` returns the milliseconds that it was not 200, each time. */
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
