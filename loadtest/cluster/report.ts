/** The report of a cluster run as Markdown. */

import { type Check, checkTable, percentiles } from "../report/checks.ts";
import { short, table } from "../report/table.ts";
import { median } from "../traffic/statistics.ts";
import type { Autoscaling } from "./autoscale.ts";
import type { MixedLoad } from "./clients.ts";
import type { Size } from "./kubernetes.ts";
import { SHAPE, type Throughput } from "./throughput.ts";

/** A disturbance under load, and what clients saw. */
export interface Struck {
  name: string;
  seconds: number;
  seen: string;
  /** Answers through all ways into the cluster while it lasted. */
  answers: number;
  /** Failures that clients retried. */
  retried: number;
  /** Milliseconds of the slowest answer. */
  slowest: number;
}

/** All that a run found. */
export interface Run {
  machine: string;
  version: string;
  /** Seconds of the parts: start of the cluster, first answer, and others. */
  times: Record<string, number>;
  loads: Record<string, MixedLoad>;
  struck: Struck[];
  checks: Check[];
  sizes: Size[];
  throughput?: Throughput;
  autoscaling?: Autoscaling;
  seconds: number;
}

/** Return the claims about the answers of the mixed load through one way into the cluster. */
export function checksOfLoad(way: string, load: MixedLoad): Check[] {
  const { tally } = load;
  const wrong = [...tally.lost, ...tally.different, ...tally.steps];
  const { post, sse, websocket } = tally.answered;
  return [
    {
      claim: `through ${way}: every request was answered once, no failure reached a client that retries`,
      holds: tally.lost.length === 0 && tally.refused === 0 && load.answers > 0,
      seen:
        `${post} by POST, ${sse} by events (${tally.resumes} resumptions), ${websocket} by WebSocket; ` +
        `${load.retried} failures retried, ${tally.lost.length} lost${wrong[0] ? `: ${wrong[0]}` : ""}`,
    },
    {
      claim: `through ${way}: seeded answers and every step are those of a cluster in peace`,
      holds: tally.different.length + tally.steps.length === 0,
      seen: `${tally.different.length} answers and ${tally.steps.length} streams differ`,
    },
  ];
}

const seconds = (value: number) => `${value.toFixed(1)} s`;

/** Return the report. */
export function markdownOf(run: Run, picture?: string): string {
  const parts = [
    `# Kubernetes\n\n${run.machine}; image didi-serve:${run.version}. ` +
      `Two nodes on this one machine (\`deploy/kubernetes/test\`).\n` +
      `\`npm run cluster\` took ${Math.round(run.seconds)} s.`,
    checkTable(run.checks),
    table(
      ["part", "time"],
      Object.entries(run.times).map(([name, value]) => [name, seconds(value)]),
    ),
  ];
  if (run.struck.length > 0)
    parts.push(
      "## Under load\n\nClients by POST, events and WebSocket ask through each way at once. Retried failures " +
        "are connections that broke and\nstatuses from 500.",
      table(
        ["disturbance", "lasted", "answers", "retried", "slowest answer", "seen"],
        run.struck.map(({ name, seconds: lasted, answers, retried, slowest, seen }) => [
          ...[name, seconds(lasted), answers, retried, seconds(slowest / 1000), seen],
        ]),
      ),
      Object.entries(run.loads)
        .map(([way, { latencies }]) => {
          const { median: middle, p95, max } = percentiles(latencies);
          return `Answers through ${way}: median ${middle} ms, 95% ${p95} ms, slowest ${max} ms.`;
        })
        .join("\n"),
    );
  if (run.sizes.length > 0)
    parts.push(
      "## Size of a pod",
      table(
        ["when", "start to ready", "server", "worker", "together", "quality of service"],
        run.sizes.map(({ when, startSeconds, server, workers, quality }) => [
          ...[when, `${startSeconds} s`, `${server} MB`, `${workers} MB`, `${server + workers} MB`, quality],
        ]),
      ),
    );
  if (run.throughput) {
    const { rows, cost } = run.throughput;
    parts.push(
      `## Throughput\n\nHalf a core a replica; ${SHAPE.length} new tokens in ${SHAPE.steps} steps. The formula of ` +
        `[scaling](../operate/scaling.md#throughput)\nwith a = ${short(cost.a)} ms and b = ${short(cost.b)} ms, ` +
        "fitted to one replica.",
      table(
        ["replicas", "clients", "tokens a second", "lowest to highest", "by the formula"],
        rows.map(({ replicas, clients, measured, formula }) => [
          ...[replicas, clients, short(median(measured))],
          ...[`${short(Math.min(...measured))} to ${short(Math.max(...measured))}`, short(formula)],
        ]),
      ),
    );
  }
  if (run.autoscaling && picture)
    parts.push(
      "## Autoscaler\n\nOne or two replicas of half a core; Poisson arrivals at 0.25, 1.6 and 0.25 times " +
        "what one replica answers.",
      `![Replicas, queue age and latency](${picture})`,
    );
  return parts.join("\n\n");
}
