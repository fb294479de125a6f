/** How a figure of the benchmarks is taken and shown: sides in turn, the median of the repeats with their range. */

import { median } from "../traffic/statistics.ts";

/** Return "median (lowest to highest)". */
export function range(values: readonly number[], digits: number): string {
  const show = (value: number) => value.toFixed(digits);
  return `${show(median(values))} (${show(Math.min(...values))} to ${show(Math.max(...values))})`;
}

/**
 * Run the sides in turn, `repeats` times; return the values of each side. On a noisy machine, neighbours in time
 * compare best.
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

/** Print a row of a Markdown table, as soon as it has been measured. */
export function tableRow(...cells: (string | number)[]): void {
  console.log(`| ${cells.join(" | ")} |`);
}
