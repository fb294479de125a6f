/** A pass on its way through a runtime process. */

import type { ChildProcess } from "node:child_process";
import type { Call, GraphName, Graphs } from "./protocol.ts";

/** A call of a graph, and who waits for it. */
export interface Pass {
  id: number;
  call: Call;
  attempts: number;
  /** True while the process that lives has it: it runs there, or waits behind the one that does. */
  sent?: boolean;
  /** Most attempts. */
  most: number;
  /** True once its numbers were not finite and a fresh process is to try. */
  doubted: boolean;
  /** True if it only tries the process. */
  isTrial?: boolean;
  /** True if it is to run in every session of the process that may take a part of a call. */
  everywhere: boolean;
  /** The process that gave finite numbers for another pass after this one's were not. */
  soundIn?: ChildProcess | undefined;
  resolve(result: Graphs[GraphName]["result"]): void;
  reject(error: Error): void;
}

/** Whether what depends on every number of a pass is a number. */
export function hasOnlyNumbers(result: Graphs[GraphName]["result"]): boolean {
  const finite = (values: Float32Array) => values.every(Number.isFinite);
  return (
    (!("logprob" in result) || finite(result.logprob)) && (!("reward" in result) || finite(result.reward))
  );
}
