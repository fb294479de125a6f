/** What a run of the fuzzer came to. */

import { median } from "../bench/measure.ts";
import { type Check, checkTable, table } from "../report/checks.ts";
import type { Ending, Memory } from "../servers/strained.ts";

export const KINDS = ["body", "resume", "headers", "framing", "frames"] as const;
export type Kind = (typeof KINDS)[number];

/** A case that the server did not answer as it should. */
export interface Fault {
  case: number;
  kind: Kind;
  why: string;
  answer: string;
  /** The beginning of what was sent. */
  sent: string;
}

/** A run, as it is kept. */
export interface Run {
  machine: string;
  seed: number;
  cases: number;
  seconds: number;
  interrupted: boolean;
  /** How often each answer came; several of one case are joined by +. */
  statuses: Record<Kind, Record<string, number>>;
  faults: Fault[];
  slowestMs: number;
  memory: ({ cases: number } & Memory)[];
  /** Times that /readyz was not 200. */
  unready: number;
  alive: boolean;
  ready: boolean;
  ending: Ending | undefined;
  complaints: string[];
}

/** Growth that still counts as flat. */
const FLAT = 1.1;

/** What has to hold. */
export function checksOf(run: Run): Check[] {
  // A heap goes up and down between collections: thirds of the run are compared, not moments.
  const third = (n: number) => {
    const [from, to] = [n - 1, n].map((k) => Math.floor((k * run.memory.length) / 3));
    return median(run.memory.slice(from, to).map(({ server }) => server));
  };
  const [settled, last] = [third(2), third(3)];
  const hung = run.faults.filter(({ why }) => why === "hung").length;
  return [
    {
      claim: "no crash",
      holds: run.alive,
      seen: run.alive ? "the same process all along" : run.complaints.join(" "),
    },
    {
      claim: "no hang",
      holds: hung === 0,
      seen: `${hung} of ${run.cases}; the slowest case took ${Math.round(run.slowestMs)} ms`,
    },
    {
      claim: "no answer of 5xx but 503 (and 505, for a version of HTTP that there is not)",
      holds: run.faults.length === hung,
      seen: `${run.faults.length - hung}`,
    },
    {
      claim: "ready all the time and afterwards",
      holds: run.unready === 0 && run.ready,
      seen: `${run.unready} times not`,
    },
    {
      claim: "memory of the server flat: the median of the last third beside that of the second",
      holds: last! <= FLAT * settled!,
      seen: `${Math.round(settled!)} MB, then ${Math.round(last!)} MB`,
    },
    {
      claim: "SIGTERM ends it with exit code 0",
      holds: run.ending?.code === 0,
      seen: `exit ${run.ending?.code ?? run.ending?.signal}`,
    },
  ];
}

/** The report. */
export function markdownOf(run: Run, checks: readonly Check[]): string {
  const rows = KINDS.map((kind) => {
    const counts = Object.entries(run.statuses[kind]).toSorted((a, b) => b[1] - a[1]);
    const shown = counts.slice(0, 8).map(([status, count]) => `${status}: ${count}`);
    return [kind, counts.reduce((sum, [, count]) => sum + count, 0), shown.join(", ")];
  });
  const faults =
    run.faults.length > 0
      ? `\n\n${table(
          ["case", "kind", "what"],
          run.faults.map((f) => [f.case, f.kind, f.why]),
        )}`
      : "";
  const step = Math.max(1, Math.floor(run.memory.length / 10));
  const curve = run.memory.filter((_, i) => i % step === 0 || i === run.memory.length - 1);
  return `# Fuzzing

${run.machine}. ${run.cases} cases in ${run.seconds} s, seed ${run.seed}${run.interrupted ? ", interrupted" : ""}.

${checkTable(checks)}${faults}

\`body\` are right and wrong JSON bodies of the three routes that take one, \`resume\` event streams with a Last-Event-ID, \`headers\` and \`framing\` raw requests of every sort,
\`frames\` WebSocket frames. "closed" is a connection that the server ended without an answer; answers of one connection are joined by +.

${table(["kind", "cases", "answers"], rows)}

${table(
  ["cases", "server, MB", "runtime process, MB"],
  curve.map(({ cases, server, runtimes }) => [cases, Math.round(server), Math.round(runtimes)]),
)}`;
}
