/** The checks and the report of a chaos run. */

import { type Check, checkTable, percentiles } from "../report/checks.ts";
import { table } from "../report/table.ts";
import type { Ending, Memory } from "../servers/server.ts";
import { KINDS } from "./faults.ts";
import type { Struck } from "./strike.ts";
import type { Tally } from "./traffic.ts";

/** The measurements of a run. */
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

/** Return the milliseconds that a worker was down. With a memory limit it works until it needs more. */
const downMs = ({ kind, noticedMs, recoveredMs }: Struck) =>
  kind === "memory" ? recoveredMs - noticedMs : recoveredMs;

/**
 * Return the checks. `least` is the required number of effective faults, `limitSeconds` the limit on
 * recovery.
 */
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
      // A stream that a client broke off may already have been complete.
      claim: "server and clients count the same answers, except for streams that clients broke off",
      holds: beyond >= 0 && beyond <= tally.resumes,
      seen: `${counted.done} by the server, ${answers} by the clients, ${tally.resumes} broken and resumed`,
    },
    {
      claim: "every answer equals the answer without faults",
      holds: tally.different.length === 0,
      seen: `${tally.different.length} differ${first(tally.different)}`,
    },
    {
      claim: "no stream skipped, repeated or changed a step",
      holds: tally.steps.length === 0,
      seen:
        `${tally.answered.sse + tally.answered.websocket} streams, ${tally.steps.length} wrong, ` +
        `${tally.merged} steps merged for slow readers${first(tally.steps)}`,
    },
    {
      claim: `every worker had the model again within ${limitSeconds} s of a fault (memory: of its effect)`,
      holds: slowest <= 1000 * limitSeconds,
      seen: `the slowest took ${Math.round(slowest)} ms`,
    },
    {
      claim: `/readyz was never other than 200 for longer than ${limitSeconds} s`,
      holds: Math.max(0, ...unready) <= 1000 * limitSeconds && run.readyAfter,
      seen: `${unready.length} times, at most ${Math.round(Math.max(0, ...unready))} ms`,
    },
    {
      // On a busy machine, a slow worker must not be taken for a frozen one.
      claim: "no worker was replaced without a fault",
      holds: run.restarts <= effective.length,
      seen: `${run.restarts} replaced, ${effective.length} faults`,
    },
    {
      claim: `at least ${least} faults took effect`,
      holds: effective.length >= least,
      seen: `${effective.length} of ${struck.length}`,
    },
    {
      claim: "after SIGTERM the exit code is 0 and no process is left",
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
  const [before, after] = [memory.before, memory.after].map(({ server }) => Math.round(server));
  return `# Chaos

${run.machine}. ${run.seconds} s, seed ${run.seed}${run.interrupted ? ", interrupted" : ""}; two workers.

${checkTable(checks)}

Faults: \`kill\` is SIGKILL, \`freeze\` is SIGSTOP, \`memory\` a limit (RLIMIT_AS) at the current memory,
\`nan\` writes NaN over the weights in memory. Times in milliseconds from the fault: median / 95% / largest.
"Without effect" counts processes that stayed within their limit.

${table(["fault", "times", "without effect", "noticed", "worker replaced", "cause in the log"], rows)}

Answers: ${post} by POST, ${sse} by server-sent events (${tally.resumes} resumptions),
${websocket} by WebSocket; ${tally.refused} requests refused with 429 or 503.
Resident memory of the server: ${before} MB before, ${after} MB after.`;
}
