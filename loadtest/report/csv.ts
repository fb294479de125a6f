/** The measurements as a table: a row for each. */

import { clientsOf } from "./select.ts";
import { FIGURES } from "./summary.ts";
import type { Results } from "./types.ts";

const quote = (value: string | number | undefined) =>
  typeof value === "string" && /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : (value ?? "");

/** A header, then a row for each measurement; what was not measured is empty. */
export function toCsv({ cells }: Results): string {
  const head = ["side", "transport", "clients", "rate_per_second", "steps", "length", "guidance", "traffic"];
  const counts = ["repeat", "started_s", "seconds", "requests", "tokens", "errors"];
  const figures = Object.keys(FIGURES);
  const rows = cells.flatMap((cell) => {
    const { side, transport, load, shapes, measurements } = cell;
    const [shape] = shapes.length === 1 ? shapes : [];
    const names = shapes.map(({ name }) => name).join(" + ");
    const rate = load.kind === "open" ? load.rate : undefined;
    return measurements.map((m) => [
      ...[side, transport, clientsOf(cell), rate, shape?.steps, shape?.length, shape?.guidance, names],
      ...[m.repeat, m.started_s.toFixed(2), m.seconds.toFixed(4), m.requests, m.tokens],
      Object.values(m.errors).reduce((sum, count) => sum + count, 0),
      ...Object.values(FIGURES).map((read) => {
        const value = read(m);
        return value === undefined ? undefined : Number(value.toPrecision(6));
      }),
    ]);
  });
  return [[...head, ...counts, ...figures], ...rows].map((row) => `${row.map(quote).join(",")}\n`).join("");
}
