/** Measures the resources and the batches of a server between two moments. */

import type { Measurement } from "../report/types.ts";
import { keyHeaders } from "../traffic/http.ts";
import { busySeconds } from "./machine.ts";
import { treeUse } from "./processes.ts";
import { scrape } from "./server.ts";

/** The figures of the server in a measurement. */
export type ServerFigures = Pick<Measurement, "batch" | "server" | "other_cpu_cores">;

interface Look {
  at: number;
  metrics: Map<string, number>;
  use: ReturnType<typeof treeUse>;
  /** Processor seconds of all programs and of this one. */
  busy: { all: number; client: number };
}

/** Watches a server, and its processes if this program has started it. */
export class ServerWatch {
  constructor(
    readonly origin: string,
    /** Id of the process; undefined for a server that was running. */
    readonly pid: number | undefined,
    /** Whether it has the metrics of didi-serve. */
    readonly metrics = true,
  ) {}

  async look(): Promise<Look> {
    const metrics = this.metrics ? await scrape(this.origin, keyHeaders()).catch(() => new Map()) : new Map();
    const use = this.pid === undefined ? undefined : treeUse(this.pid);
    const { user, system } = process.cpuUsage();
    const busy = { all: busySeconds(), client: (user + system) / 1e6 };
    return { at: performance.now(), metrics, use, busy };
  }

  /** Return the figures between two moments; unknown ones are absent. */
  between(before: Look, after: Look): ServerFigures {
    const seconds = (after.at - before.at) / 1000;
    const grown = (name: string) => total(after.metrics, name) - total(before.metrics, name);
    const calls = grown("didi_batch_rows_count");
    const figures: ServerFigures = {};
    if (calls > 0)
      figures.batch = {
        calls,
        rows: grown("didi_batch_rows_sum") / calls,
        busy: grown("didi_batch_seconds_sum") / seconds,
      };
    if (before.use && after.use) {
      const cpu = ({ own, children }: NonNullable<Look["use"]>) => own.cpuSeconds + children.cpuSeconds;
      figures.server = {
        // The seconds of workers that have ended are not counted.
        cpu_cores: Math.max(0, cpu(after.use) - cpu(before.use)) / seconds,
        rss_bytes: after.use.own.residentBytes + after.use.children.residentBytes,
        of: "processes",
      };
      const others = (look: Look) => look.busy.all - look.busy.client - cpu(look.use!);
      figures.other_cpu_cores = Math.max(0, others(after) - others(before)) / seconds;
    } else if (after.metrics.has("process_cpu_seconds_total"))
      figures.server = {
        cpu_cores: grown("process_cpu_seconds_total") / seconds,
        rss_bytes: after.metrics.get("process_resident_memory_bytes") ?? 0,
        of: "server",
      };
    return figures;
  }
}

/** Return the sum over a metric's labels. */
function total(metrics: ReadonlyMap<string, number>, name: string): number {
  let sum = 0;
  for (const [key, value] of metrics) if (key === name || key.startsWith(`${name}{`)) sum += value;
  return sum;
}
