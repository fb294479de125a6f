/** Tables in Markdown, and the form of figures in them. */

import type { Quantiles, Spread } from "./types.ts";

/** Return a table with aligned columns. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const widths = head.map((_, i) => Math.max(3, ...[head, ...rows].map((row) => `${row[i]!}`.length)));
  const line = (cells: readonly (string | number)[]) =>
    `| ${cells.map((cell, i) => `${cell}`.padEnd(widths[i]!)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

/** Return a number with about three significant digits. */
export function short(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : 2);
}

/** Return "median (lowest to highest)"; a dash if there is none. */
export function showSpread(spread: Spread | undefined, scale = 1): string {
  if (!spread) return "-";
  const [median, lowest, highest] = [spread.median, spread.lowest, spread.highest].map((v) =>
    short(v / scale),
  );
  return `${median} (${lowest} to ${highest})`;
}

/** Return the rate of a knee in requests a second, or that no tried rate held. */
export function showKnee(rate: Spread): string {
  if (rate.highest === 0) return "none of the tried rates held";
  return rate.lowest === 0 ? `${showSpread(rate)}; 0: none of the tried rates held` : showSpread(rate);
}

/** Return "p50 / p90 / p99 / max"; a dash if there is none. */
export function showQuantiles(quantiles: Quantiles | undefined): string {
  if (!quantiles) return "-";
  return [quantiles.p50, quantiles.p90, quantiles.p99, quantiles.max].map(short).join(" / ");
}
