/** The checks and the report of an overload run. */

import { type Check, checkTable, type Percentiles } from "../report/checks.ts";
import { table } from "../report/table.ts";
import type { Ending } from "../servers/server.ts";
import type { Flood, Return } from "./flood.ts";
import type { Slow } from "./slow.ts";

/** The measurements of a run. */
export interface Run {
  machine: string;
  queue: number;
  active: number;
  /** Answers a second. */
  capacity: number;
  flooded: Flood;
  returned: Return;
  slow?: Slow;
  ready: boolean;
  ending: Ending;
}

const LIMIT_MS = 5000;
/** Share of the capacity that passes as full speed, because other programs use the machine. */
const FULL_SPEED = 0.7;
/** Required share of refusals with a correct Retry-After. */
const MOSTLY = 0.95;
/** Limit on the growth of the server in megabytes, under a flood and with slow readers. */
const GROWTH_MB = 200;

const show = ({ median, p95, max }: Percentiles) => `${median} / ${p95} / ${max}`;
const percent = (part: number, whole: number) => `${((100 * part) / Math.max(1, whole)).toFixed(1)}%`;

/** Return the checks. */
export function checksOf({ capacity, flooded, returned, slow, ready, ending }: Run): Check[] {
  const { deadlines, retryAfter, memory } = flooded;
  const grown = Math.max(...memory.map(({ server }) => server)) - memory[0]!.server;
  const checks: Check[] = [
    {
      claim: "every request was answered, or refused with 429 or 503",
      holds: flooded.other === 0,
      seen:
        `${flooded.sent} sent, ${flooded.answered} answered, ` +
        `${flooded.refused} refused, ${flooded.other} neither`,
    },
    {
      speed: true,
      claim: "accepted requests met their deadline, with the best canvas by then",
      holds: deadlines.late <= 0.01 * deadlines.answered,
      seen:
        `${deadlines.answered} with a deadline, ${deadlines.cutShort} cut short, ` +
        `${deadlines.late} more than half a second late; ms late ${show(deadlines.lateness)}`,
    },
    {
      speed: true,
      claim: "Retry-After is right within a factor of 2",
      holds: retryAfter.of > 0 && retryAfter.true >= MOSTLY * retryAfter.of,
      seen:
        `${percent(retryAfter.true, retryAfter.of)} of ${retryAfter.of}; ` +
        `Retry-After ${show(retryAfter.said)} s, actual ${show(retryAfter.took)} s`,
    },
    {
      speed: true,
      claim: "requests that are sent again after their Retry-After are accepted",
      holds: returned.refused > 0 && returned.taken === returned.refused,
      seen: `${returned.taken} of ${returned.refused}, after a burst of ${returned.burst}`,
    },
    {
      claim: `memory is bounded: the server grew by less than ${GROWTH_MB} MB`,
      holds: grown < GROWTH_MB,
      seen: `${Math.round(grown)} MB`,
    },
    {
      speed: true,
      claim: "full speed in the 5 s after the flood, on the accepted requests",
      holds: flooded.afterwardsPerSecond >= FULL_SPEED * capacity,
      seen: `${flooded.afterwardsPerSecond.toFixed(1)} of ${capacity.toFixed(1)} answers a second`,
    },
    {
      speed: true,
      claim: `a single request as quick as before within ${LIMIT_MS / 1000} s of the last answer`,
      holds: flooded.aloneAgainAfterMs <= LIMIT_MS,
      seen:
        `${flooded.aloneMs} ms before; at most 1.5 times that ` +
        `${Math.round(flooded.aloneAgainAfterMs)} ms after the last answer`,
    },
  ];
  if (slow) {
    const [idleTime, amidTime] = slow.asked;
    const grew = slow.memory[1].server - slow.memory[0].server;
    checks.push(
      {
        speed: true,
        claim: "other clients are served while idle and slow ones are connected",
        holds: amidTime.count === idleTime.count && amidTime.median <= 3 * idleTime.median + 50,
        seen:
          `ms of a request: ${show(idleTime)} before, ` +
          `${show(amidTime)} with ${slow.connections[1]} connections`,
      },
      {
        claim: `slow clients cost less than ${GROWTH_MB} MB`,
        holds: grew < GROWTH_MB,
        seen: `${Math.round(grew)} MB`,
      },
      {
        claim: "no connection is left after the slow clients have closed",
        holds: slow.connections[2] <= slow.connections[0] + 1,
        seen: `${slow.connections[0]} before, ${slow.connections[1]} with them, ${slow.connections[2]} after`,
      },
      {
        claim: "the requests of a killed client process end at once",
        holds: slow.killedMs !== undefined,
        seen: slow.killedMs === undefined ? "they ran on" : `${Math.round(slow.killedMs)} ms`,
      },
    );
  }
  checks.push({
    claim: "ready afterwards, and exit code 0 after SIGTERM",
    holds: ready && ending.code === 0 && ending.left === 0,
    seen: `ready: ${ready}, exit ${ending.code ?? ending.signal}, ${ending.left} processes left`,
  });
  return checks;
}

/** Return the report as Markdown. */
export function markdownOf(run: Run, checks: readonly Check[]): string {
  const { flooded, slow } = run;
  const curve = table(
    ["second", "server, MB", "worker, MB"],
    flooded.memory.map(({ second, server, workers }) => [second, Math.round(server), Math.round(workers)]),
  );
  const killed = slow?.killedMs === undefined ? "more than 10 s" : `${Math.round(slow.killedMs)} ms`;
  const frozen =
    slow?.frozenMs === undefined
      ? "its rows ran to their end"
      : `its rows were free after ${(slow.frozenMs / 1000).toFixed(1)} s`;
  const clients = slow
    ? `
## Slow clients

They stayed ${slow.seconds} s. Simulated on the loopback interface: silent clients are sockets that send
nothing, clients that never read are sockets that are not read, and a client that vanishes without FIN is
a process that is stopped (SIGSTOP) with open sockets.

${table(
  ["clients", "sockets", "ended by the server"],
  slow.crowds.map(({ name, sockets, ended }) => [name, sockets, ended]),
)}

A client process with 8 running requests was killed: its rows were free after ${killed}.
Another was frozen: ${frozen}.
`
    : "";
  return `# Overload

${run.machine}.
Queue ${run.queue}, ${run.active} active rows; requests of 32 tokens in 8 steps, all different, every other
one with a deadline of 2 s. Capacity in a closed loop: ${run.capacity.toFixed(1)} a second.
Flood: ${flooded.perSecond.toFixed(0)} a second for ${flooded.seconds} s in an open loop.
Triples are median / 95% / largest.

${checkTable(checks)}

Retry-After is compared with the time in which all requests accepted before it were answered. It counts as
right within a factor of 2 and half a second of rounding, or within a second.

## Memory during the flood

${curve}
${clients}`;
}
