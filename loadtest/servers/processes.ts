/** What processes use, as Linux tells it under /proc. */

import { readdirSync, readFileSync } from "node:fs";

/** What a process has used. */
export interface Use {
  cpuSeconds: number;
  residentBytes: number;
}

/** Clock ticks a second in /proc: a constant of the kernel's interface. */
const TICKS = 100;

function useOf(id: number | string): Use {
  // The name, in parentheses, may hold anything: fields are counted after it.
  const stat = readFileSync(`/proc/${id}/stat`, "utf8").split(") ").at(-1)!.split(" ");
  const resident = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? 0);
  return { cpuSeconds: (Number(stat[11]) + Number(stat[12])) / TICKS, residentBytes: resident * 1024 };
}

/** Use of a process and of its children, added up; undefined where there is no /proc, or no such process. */
export function treeUse(id: number): { own: Use; children: Use } | undefined {
  try {
    const children = readdirSync(`/proc/${id}/task`)
      .flatMap((task) => readFileSync(`/proc/${id}/task/${task}/children`, "utf8").trim().split(/\s+/))
      .filter(Boolean)
      .map(useOf);
    const sum = (field: keyof Use) => children.reduce((total, use) => total + use[field], 0);
    return {
      own: useOf(id),
      children: { cpuSeconds: sum("cpuSeconds"), residentBytes: sum("residentBytes") },
    };
  } catch {
    return undefined;
  }
}
