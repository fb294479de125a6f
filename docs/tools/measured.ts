/** Tables of measured quality, from what `npm run quality -- --json` wrote beside a model. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Judged } from "../../loadtest/quality/judge.ts";
import type { Setting } from "../../loadtest/quality/sample.ts";
import { short, table } from "../../loadtest/report/table.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

type Cell = Setting & Judged & { passes?: number; milliseconds?: number };

const CARD = join(PACKAGE_ROOT, "models", "stories-didi", "card");

function cellsOf(file: string): Cell[] {
  return (JSON.parse(readFileSync(join(CARD, file), "utf8")) as { cells: Cell[] }).cells;
}

const percent = (share: number) => `${(100 * share).toFixed(1)}%`;

/** Return "perplexity (95% interval)" by the first judge. */
function perplexity({ judges: [first] }: Cell): string {
  const { perplexity, interval } = first!;
  const [low, high] = interval.map((bound) => bound.toFixed(perplexity < 100 ? 1 : 0));
  return `${short(perplexity)} (${low} to ${high})`;
}

/** Return a table of the student, plain and guided, and of its teacher, by steps. */
export function steps(): string {
  const cells = cellsOf("quality.json");
  const show = (cell: Cell | undefined) => (cell ? `${perplexity(cell)}, ${cell.entropy.toFixed(3)}` : "");
  const plain = cells.filter(({ request, model }) => request && !model && Object.keys(request).length === 1);
  const rows = plain.map((cell) => {
    const count = cell.request!.steps!;
    const others = [`${count} steps, guided`, `teacher, ${count} steps, 0.85`];
    return [count, ...[cell, ...others.map((wanted) => cells.find(({ name }) => name === wanted))].map(show)];
  });
  return table(["steps", "student", "student, guided", "teacher at 0.85"], rows);
}

/** Return a table of the settings that have a series, and of held-out text. */
export function temperatures(): string {
  const rows = cellsOf("quality.json")
    .filter(({ name, series }) => series !== undefined || name.startsWith("held-out"))
    .map((cell) => {
      const { distinct, triples, repeated } = cell.words;
      return [
        cell.name,
        perplexity(cell),
        cell.entropy.toFixed(3),
        ...[distinct, triples, repeated].map(percent),
      ];
    });
  return table(
    ["steps, temperature", "perplexity (95%)", "entropy", "distinct", "triples", "repeated"],
    rows,
  );
}

/** Return a table of what the settings of the sampler bring. */
export function decoding(): string {
  const rows = cellsOf("decoding.json").map((cell) => [
    cell.name,
    cell.passes?.toFixed(1) ?? "",
    cell.milliseconds?.toFixed(0) ?? "",
    perplexity(cell),
    cell.entropy.toFixed(3),
    percent(cell.words.distinct),
    percent(cell.words.repeated),
  ]);
  return table(["setting", "passes", "ms", "perplexity (95%)", "entropy", "distinct", "repeated"], rows);
}
