/** Warnings in a report. */

import { spread } from "./summary.ts";
import type { Cell } from "./types.ts";

/** Cores of the client, which has one thread, above which it may be the limit. */
const CLIENT_LIMIT = 0.8;
/** Share of the processor time above which the client takes time from the server. */
const CLIENT_SHARE = 0.25;

/** Cores of other programs above which they disturb a measurement. */
const OTHERS_LIMIT = 0.25;

/** Return the warnings for cells that were measured on a machine with `cores` cores. */
export function warningsOf(cells: readonly Cell[], cores: number): string[] {
  const warnings: string[] = [];
  const named = (fits: (cell: Cell) => boolean) => cells.filter(fits).map(({ id }) => id);
  const say = (ids: string[], text: string) => {
    if (ids.length > 0) warnings.push(`${text}: ${ids.join("; ")}.`);
  };
  const client = ({ summary }: Cell) => summary.figures.client_cpu_cores?.median ?? 0;
  say(
    named((cell) => client(cell) > CLIENT_LIMIT),
    `The client used more than ${CLIENT_LIMIT} of a core and may be the limit`,
  );
  say(
    named((cell) => {
      const { figures } = cell.summary;
      const server = figures.server_cpu_cores?.median;
      if (server === undefined || cell.measurements.some((m) => m.server?.of !== "processes")) return false;
      const both = server + client(cell);
      return both > 0.85 * cores && client(cell) > CLIENT_SHARE * both;
    }),
    `Client and server filled the machine, and the client took more than ${CLIENT_SHARE * 100}% of it`,
  );
  for (const { id, summary } of cells) {
    const errors = Object.entries(summary.errors).map(([kind, count]) => `${count} x ${kind}`);
    if (errors.length > 0) warnings.push(`Errors in ${id}: ${errors.join(", ")}.`);
  }
  say(
    named(({ load, summary }) => {
      const { median, lowest, highest } = summary.figures.tokens_per_second ?? spread([1]);
      return load.kind === "closed" && highest - lowest > 0.4 * median;
    }),
    "Throughput differed by more than 40% between repeats",
  );
  const others = cells.flatMap(({ measurements }) => measurements.map((m) => m.other_cpu_cores ?? 0));
  const disturbed = others.filter((used) => used > OTHERS_LIMIT).length;
  if (disturbed > 0)
    warnings.push(
      `Other programs used more than ${OTHERS_LIMIT} of a core in ${disturbed} of ` +
        `${others.length} measurements, up to ${Math.max(...others).toFixed(1)} cores.`,
    );
  const speeds = cells.flatMap(({ measurements }) => measurements.map((m) => m.machine_speed));
  if (speeds.length > 0) {
    const { median, lowest } = spread(speeds);
    if (lowest < 0.8 * median)
      warnings.push(
        "The machine was not steady: the speed of a fixed loop fell to " +
          `${((100 * lowest) / median).toFixed(0)}% of its median.`,
      );
  }
  return warnings;
}
