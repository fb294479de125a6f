/** Whether results are worse than a baseline by more than noise. */

import { type Comparison, compare, type Difference } from "./compare.ts";
import type { Results } from "./types.ts";

/** What the gate says. */
export interface GateVerdict {
  passed: boolean;
  comparison: Comparison;
  /** Worse, and the whole interval lies beyond the tolerance. */
  regressions: Difference[];
  /** Cells of the baseline that were not measured, and those that had errors the baseline had not. */
  faults: string[];
}

/** Holds `results` to `baseline`. `tolerance` is the share of a figure that may be lost without failing, such as 0.05. */
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
