/** Interleaved measurements, and tables of their medians and ranges. */

import { median } from "../traffic/statistics.ts";

/** Return "median (lowest to highest)". */
export function range(values: readonly number[], digits: number): string {
  const show = (value: number) => value.toFixed(digits);
  return `${show(median(values))} (${show(Math.min(...values))} to ${show(Math.max(...values))})`;
}

/**
 * Run the sides alternately, `repeats` times; return the values of each side. On a noisy machine,
 * measurements that are close in time compare best.
 */
export async function interleave(repeats: number, ...sides: (() => Promise<number>)[]): Promise<number[][]> {
  const values: number[][] = sides.map(() => []);
  for (let i = 0; i < repeats; i++) for (const [k, side] of sides.entries()) values[k]!.push(await side());
  return values;
}

/** Print the head of a Markdown table. */
export function tableHead(...columns: string[]): void {
  tableRow(...columns);
  tableRow(...columns.map(() => "---"));
}

/** Print a row of a Markdown table. */
export function tableRow(...cells: (string | number)[]): void {
  console.log(`| ${cells.join(" | ")} |`);
}
