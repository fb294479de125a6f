/** Repeats, medians and ranges: how every figure of the benchmarks is taken. */

/** The value below which a share `q` of `values` lies. */
export function quantile(values: readonly number[], q: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))]!;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

/** "median (lowest to highest)". */
export function range(values: readonly number[], digits: number): string {
  const show = (value: number) => value.toFixed(digits);
  return `${show(median(values))} (${show(Math.min(...values))} to ${show(Math.max(...values))})`;
}

/** Element by element. */
export function ratios(over: readonly number[], under: readonly number[]): number[] {
  return over.map((value, i) => value / under[i]!);
}

/** Runs the sides in turn, `repeats` times: what each gave. On a noisy machine neighbours in time compare best. */
export async function interleave(repeats: number, ...sides: (() => Promise<number>)[]): Promise<number[][]> {
  const values: number[][] = sides.map(() => []);
  for (let i = 0; i < repeats; i++) for (const [k, side] of sides.entries()) values[k]!.push(await side());
  return values;
}

/** Prints a table's head. */
export function tableHead(...columns: string[]): void {
  tableRow(...columns);
  tableRow(...columns.map(() => "---"));
}

/** Prints a row of a table. */
export function tableRow(...cells: (string | number)[]): void {
  console.log(`| ${cells.join(" | ")} |`);
}
