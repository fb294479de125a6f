/** The checks of `overload`, `soak` and `chaos`, and their reports as Markdown and JSON. */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { quantile } from "../traffic/statistics.ts";
import { table } from "./table.ts";

/** A claim and its result. */
export interface Check {
  claim: string;
  holds: boolean;
  /** The measured values. */
  seen: string;
  /** Whether the result depends on the speed of the machine. */
  speed?: boolean;
}

/** Median, 95th percentile and maximum. */
export interface Percentiles {
  count: number;
  median: number;
  p95: number;
  max: number;
}

/** Return the percentiles of values, rounded to a tenth; zeros if there are none. */
export function percentiles(values: readonly number[]): Percentiles {
  if (values.length === 0) return { count: 0, median: 0, p95: 0, max: 0 };
  const [median, p95, max] = [0.5, 0.95, 1].map((q) => Math.round(quantile(values, q) * 10) / 10);
  return { count: values.length, median: median!, p95: p95!, max: max! };
}

/** Return the checks as a table. */
export function checkTable(checks: readonly Check[]): string {
  return table(
    ["", "claim", "seen"],
    checks.map(({ claim, holds, seen }) => [holds ? "holds" : "FAILS", claim, seen]),
  );
}

/**
 * Print the Markdown, write both forms if there is a folder, and return the exit code: 1 if a check fails.
 */
export function publish(
  folder: string | undefined,
  name: string,
  checks: readonly Check[],
  markdown: string,
  data: object,
): 0 | 1 {
  console.log(markdown);
  if (folder !== undefined) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `${name}.md`), `${markdown}\n`);
    writeFileSync(join(folder, `${name}.json`), `${JSON.stringify({ ...data, checks }, null, 1)}\n`);
  }
  return checks.every(({ holds }) => holds) ? 0 : 1;
}
