/** Compares two results cell by cell, and decides whether the second is worse by more than noise. */

import { columns } from "../../src/cli/output/terminal.ts";
import { median, type Ratio, ratioOf } from "../traffic/statistics.ts";
import { clientsOf } from "./select.ts";
import { FIGURES } from "./summary.ts";
import type { Cell, Results } from "./types.ts";

/** The compared figures, and which direction is better. */
const COMPARED = [
  { figure: "tokens_per_second", unit: "tokens/s", better: "more" },
  { figure: "latency_p50_ms", unit: "ms, p50", better: "less" },
  { figure: "latency_p99_ms", unit: "ms, p99", better: "less" },
] as const;

/** One figure of one cell in A and in B. */
export interface Difference extends Ratio {
  id: string;
  figure: string;
  unit: string;
  a: number;
  b: number;
  /** `noise`: the interval holds 1, or there is none. */
  verdict: "better" | "worse" | "noise";
}

/** The result of `compare`. */
export interface Comparison {
  differences: Difference[];
  /** Why no cell is in both results; undefined if there is one. */
  noMatch: string | undefined;
  /** Cells of one result only. */
  onlyA: string[];
  onlyB: string[];
  /** Speed of the machine in B over that in A. */
  machine: Ratio | undefined;
}

const valuesOf = (cell: Cell, figure: string): number[] =>
  cell.measurements.map(FIGURES[figure]!).filter((value) => value !== undefined);

function difference(
  id: string,
  unit: string,
  figure: string,
  more: boolean,
  a: number[],
  b: number[],
): Difference {
  const ratio = ratioOf(a, b);
  const { interval } = ratio;
  const sure = interval !== undefined && (interval[0] > 1 || interval[1] < 1);
  const up = interval !== undefined && interval[0] > 1;
  return {
    ...{ id, figure, unit, a: median(a), b: median(b), ...ratio },
    verdict: sure ? (up === more ? "better" : "worse") : "noise",
  };
}

/** Compare B with A. Open-loop cells are compared by their knees, because each run tries its own rates. */
export function compare(a: Results, b: Results): Comparison {
  const closed = ({ cells }: Results) => cells.filter(({ load }) => load.kind === "closed");
  const inB = new Map(closed(b).map((cell) => [cell.id, cell]));
  const inA = new Set(closed(a).map(({ id }) => id));
  const differences = closed(a).flatMap((cell) => {
    const other = inB.get(cell.id);
    if (!other) return [];
    return COMPARED.flatMap(({ figure, unit, better }) => {
      const [before, after] = [valuesOf(cell, figure), valuesOf(other, figure)];
      if (before.length === 0 || after.length === 0) return [];
      return [difference(cell.id, unit, figure, better === "more", before, after)];
    });
  });
  const kneesOfB = new Map(b.knees.map((knee) => [kneeId(knee), knee]));
  const sameLimit = a.settings.p99_limit_ms === b.settings.p99_limit_ms;
  const knees = a.knees.flatMap((knee) => {
    const other = kneesOfB.get(kneeId(knee));
    if (!other || !sameLimit) return [];
    const unit = `requests/s, p99 under ${a.settings.p99_limit_ms} ms`;
    return [difference(kneeId(knee), unit, "knee", true, knee.repeats, other.repeats)];
  });
  const speeds = ({ cells }: Results) => cells.flatMap((cell) => valuesOf(cell, "machine_speed"));
  const [speedA, speedB] = [speeds(a), speeds(b)];
  return {
    differences: [...differences, ...knees],
    onlyA: [...inA].filter((id) => !inB.has(id)),
    onlyB: [...inB.keys()].filter((id) => !inA.has(id)),
    noMatch: differences.length + knees.length > 0 ? undefined : whyNoMatch(closed(a), closed(b)),
    machine: speedA.length > 0 && speedB.length > 0 ? ratioOf(speedA, speedB) : undefined,
  };
}

/** The axes of a cell that its id is made of. */
const AXES: Record<string, (cell: Cell) => string> = {
  sides: ({ side }) => side,
  transports: ({ transport }) => transport,
  clients: (cell) => `${clientsOf(cell)}`,
  shapes: ({ shapes }) => shapes.map(({ name }) => name).join(" + "),
};

/** Return which axes of two results have no value in common. */
function whyNoMatch(a: readonly Cell[], b: readonly Cell[]): string {
  if (a.length === 0 || b.length === 0) return `${a.length === 0 ? "A" : "B"} has no cells of a closed loop`;
  const apart = Object.entries(AXES).flatMap(([axis, read]) => {
    const [inA, inB] = [new Set(a.map(read)), new Set(b.map(read))];
    if ([...inA].some((value) => inB.has(value))) return [];
    return [`${axis}: A has ${[...inA].join("; ")}, B has ${[...inB].join("; ")}`];
  });
  return apart.join("\n  ") || "the values of each axis overlap, but not in the same cell";
}

const kneeId = ({ transport, shape }: Results["knees"][number]) =>
  `server | ${transport} | open loop | ${shape.name}`;

/** Return text such as "0.95 (0.91 to 0.99)". */
export function showRatio({ ratio, interval }: Ratio): string {
  const show = (value: number) => value.toPrecision(3);
  return interval
    ? `${show(ratio)} (${show(interval[0])} to ${show(interval[1])})`
    : `${show(ratio)} (no interval)`;
}

/** Return the comparison as text. */
export function describe({ differences, noMatch, onlyA, onlyB, machine }: Comparison): string {
  const rows = differences.map((d) => [
    d.id,
    d.unit,
    d.a.toPrecision(4),
    d.b.toPrecision(4),
    showRatio(d),
    d.verdict === "noise" ? "within noise" : d.verdict,
  ]);
  const all = [["cell", "figure", "A", "B", "B / A (95%)", ""], ...rows];
  const lines = noMatch === undefined ? columns(all) : [`no cell is in both results:\n  ${noMatch}`];
  for (const [name, ids] of [
    ["A", onlyA],
    ["B", onlyB],
  ] as const)
    if (ids.length > 0) lines.push(`only in ${name}: ${ids.join("; ")}`);
  if (machine) lines.push(`machine speed in B / in A: ${showRatio(machine)}`);
  if (machine && Math.abs(Math.log(machine.ratio)) > Math.log(1.1))
    lines.push(
      "The speed of the machine differed: measure A and B again, in turn, before trusting the other figures.",
    );
  return lines.join("\n");
}

/** The result of the gate. */
export interface GateVerdict {
  passed: boolean;
  comparison: Comparison;
  /** Worse figures whose whole interval lies beyond the tolerance. */
  regressions: Difference[];
  /** Cells of the baseline that were not measured, and cells with errors that the baseline did not have. */
  faults: string[];
}

/** Compare `results` with `baseline`. `tolerance` is the share of a figure that may be lost, such as 0.05. */
export function gate(results: Results, baseline: Results, tolerance: number): GateVerdict {
  const comparison = compare(baseline, results);
  const regressions = comparison.differences.filter(({ verdict, interval, figure }) => {
    if (verdict !== "worse" || !interval) return false;
    const less = figure.startsWith("latency");
    return less ? interval[0] > 1 + tolerance : interval[1] < 1 - tolerance;
  });
  const errorsOf = (from: Results) =>
    new Map(from.cells.map(({ id, summary }) => [id, Object.entries(summary.errors)]));
  const before = errorsOf(baseline);
  const faults = [
    ...comparison.onlyA.map((id) => `${id}: in the baseline, not in the results`),
    ...[...errorsOf(results)]
      .filter(([id, errors]) => errors.length > 0 && before.get(id)?.length === 0)
      .map(([id, errors]) => `${id}: ${errors.map(([kind, count]) => `${count} x ${kind}`).join(", ")}`),
  ];
  return { passed: regressions.length === 0 && faults.length === 0, comparison, regressions, faults };
}
