/** The checks and the report of a run of chaos. */

import { type Check, checkTable, percentiles } from "../report/checks.ts";
import { table } from "../report/table.ts";
import type { Ending, Memory } from "../servers/server.ts";
import { KINDS } from "./faults.ts";
import type { Struck } from "./strike.ts";
import type { Tally } from "./traffic.ts";

/** What a run has measured. */
export interface Run {
  machine: string;
  seed: number;
  seconds: number;
  interrupted: boolean;
  tally: Tally;
  struck: Struck[];
  /** Milliseconds of each interval in which /readyz was not 200. */
  unready: number[];
  readyAfter: boolean;
  /** Workers that were replaced. */
  restarts: number;
  /** Requests that the server counted, by outcome. */
  counted: Record<"done" | "failed" | "cancelled", number>;
  memory: { before: Memory; after: Memory };
  ending: Ending;
  /** The last lines of the server's standard error. */
  errors: string[];
}

const first = (faults: readonly string[]) => (faults.length > 0 ? `: ${faults[0]}` : "");

/** Return the milliseconds that a process did not work. With a limit on memory it works until it needs more. */
const downMs = ({ kind, noticedMs, recoveredMs }: Struck) =>
  kind === "memory" ? recoveredMs - noticedMs : recoveredMs;

/** Return the checks: at least `least` faults took effect, and the server recovered from each within the limit. */
export function checksOf(run: Run, least: number, limitSeconds: number): Check[] {
  const { tally, counted, struck, unready, ending } = run;
  const answers = Object.values(tally.answered).reduce((a, b) => a + b);
  const effective = struck.filter(({ effect }) => effect);
  const slowest = Math.max(0, ...effective.map(downMs));
  const beyond = counted.done - answers;
  return [
    {
      claim: "every accepted request was answered exactly once",
      holds: tally.lost.length === 0 && counted.failed === 0,
      seen: `${answers} answered, ${tally.lost.length} lost, ${counted.failed} failed${first(tally.lost)}`,
    },
    {
      // A stream that was broken on purpose may have been complete at that moment.
      claim: "the server counts as many answers as the clients, apart from streams that were broken off",
      holds: beyond >= 0 && beyond <= tally.resumes,
      seen: `${counted.done} by the server, ${answers} by the clients, ${tally.resumes} broken and resumed`,
    },
    {
      claim: "every seeded answer equals the one without faults",
      holds: tally.different.length === 0,
      seen: `${tally.different.length} differ${first(tally.different)}`,
    },
    {
      claim: "no stream skipped, repeated or changed a step",
      holds: tally.steps.length === 0,
      seen: `${tally.answered.sse + tally.answered.websocket} streams, ${tally.steps.length} wrong, ${tally.merged} steps merged for a reader that fell behind${first(tally.steps)}`,
    },
    {
      claim: `${limitSeconds} s after each fault (of memory: after it was felt) every worker held the model`,
      holds: slowest <= 1000 * limitSeconds,
      seen: `the slowest took ${Math.round(slowest)} ms`,
    },
    {
      claim: `/readyz was never other than 200 for ${limitSeconds} s`,
      holds: Math.max(0, ...unready) <= 1000 * limitSeconds && run.readyAfter,
      seen: `${unready.length} times, at most ${Math.round(Math.max(0, ...unready))} ms`,
    },
    {
      // On a busy machine a process must not be mistaken for a frozen one.
      claim: "no process was replaced without a fault",
      holds: run.restarts <= effective.length,
      seen: `${run.restarts} replaced, ${effective.length} faults`,
    },
    {
      claim: `at least ${least} faults took effect`,
      holds: effective.length >= least,
      seen: `${effective.length} of ${struck.length}`,
    },
    {
      claim: "SIGTERM ends it with exit code 0, and no process is left",
      holds: ending.code === 0 && ending.left === 0,
      seen: `exit ${ending.code ?? ending.signal}, ${ending.left} left`,
    },
  ];
}

/** Return the report as Markdown. */
export function markdownOf(run: Run, checks: readonly Check[]): string {
  const { tally, struck, memory } = run;
  const rows = KINDS.map((kind) => {
    const ours = struck.filter((fault) => fault.kind === kind && fault.effect);
    const noticed = percentiles(ours.map(({ noticedMs }) => noticedMs));
    const recovered = percentiles(ours.map(({ recoveredMs }) => recoveredMs));
    const none = struck.filter((fault) => fault.kind === kind && !fault.effect).length;
    const said = [...new Set(ours.map((fault) => fault.said))].join(", ");
    const show = ({ median, p95, max }: typeof noticed) =>
      `${Math.round(median)} / ${Math.round(p95)} / ${Math.round(max)}`;
    return [kind, ours.length, none, show(noticed), show(recovered), said];
  });
  const { post, sse, websocket } = tally.answered;
  return `# Chaos

${run.machine}. ${run.seconds} s, seed ${run.seed}${run.interrupted ? ", interrupted" : ""}; two workers.

${checkTable(checks)}

Faults: \`kill\` is SIGKILL, \`freeze\` SIGSTOP, \`memory\` a limit (RLIMIT_AS) at what the process has, \`nan\` NaN written over the weights in its memory.
Milliseconds from the fault, median / 95% / largest; "without effect" are processes that lived on within their limit.

${table(["fault", "times", "without effect", "noticed", "all processes whole again", "the log said"], rows)}

Answers: ${post} by POST, ${sse} by server-sent events (${tally.resumes} resumptions), ${websocket} by WebSocket; ${tally.refused} requests refused with 429 or 503.
Resident memory of the server: ${Math.round(memory.before.server)} MB before, ${Math.round(memory.after.server)} MB after.`;
}
