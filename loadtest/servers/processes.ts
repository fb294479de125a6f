/** Processor time and memory of processes, from /proc. Linux. */

import { readdirSync, readFileSync } from "node:fs";

/** Processor time and memory of a process. */
export interface Use {
  cpuSeconds: number;
  residentBytes: number;
}

/** Clock ticks a second in /proc: a constant of the kernel's interface. */
const TICKS = 100;

/** Return the use of a process. Throw if there is no such process, or no /proc. */
function useOf(pid: number): Use {
  // The name in parentheses may hold any character, so fields are counted after it.
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
  const resident = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0);
  return { cpuSeconds: (Number(stat[11]) + Number(stat[12])) / TICKS, residentBytes: resident * 1024 };
}

/** Return the ids of a process's children; none if the process is gone or there is no /proc. */
export function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
      .flatMap((task) => readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim().split(/\s+/))
      .filter(Boolean)
      .map(Number);
  } catch {
    return [];
  }
}

/** Return the use of a process and the sum of its children; undefined without such a process or /proc. */
export function treeUse(pid: number): { own: Use; children: Use } | undefined {
  try {
    const children = childrenOf(pid).map(useOf);
    const sum = (field: keyof Use) => children.reduce((total, use) => total + use[field], 0);
    return {
      own: useOf(pid),
      children: { cpuSeconds: sum("cpuSeconds"), residentBytes: sum("residentBytes") },
    };
  } catch {
    return undefined;
  }
}
