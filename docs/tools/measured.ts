/** Tables of measured quality, from what `npm run quality -- --json` wrote beside the model. */

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

/** Return "perplexity (95% interval)" by one of the judges. */
function perplexity({ judges }: Cell, judge = 0): string {
  const { perplexity, interval } = judges[judge]!;
  const [low, high] = interval.map((bound) => bound.toFixed(perplexity < 100 ? 1 : 0));
  return `${short(perplexity)} (${low} to ${high})`;
}

/** Return the cells that differ from each other in steps alone. */
function bySteps(cells: readonly Cell[]): Cell[] {
  return cells.filter(({ request, model }) => request && !model && Object.keys(request).length === 1);
}

/** Return a table of quality and throughput by steps. */
export function figures(): string {
  const performance = readFileSync(join(PACKAGE_ROOT, "docs", "understand", "performance.md"), "utf8");
  const rows = bySteps(cellsOf("quality.json")).flatMap((cell) => {
    const count = cell.request!.steps!;
    const speeds = [1, 8].map(
      (clients) => new RegExp(`^\\| ${count} +\\| ${clients} +\\| ([\\d,]+)`, "m").exec(performance)?.[1],
    );
    const distinct = percent(cell.words.distinct);
    return speeds[0] && speeds[1] ? [[count, perplexity(cell), distinct, speeds[0], speeds[1]]] : [];
  });
  const head = ["steps", "perplexity (95%)", "distinct words", "tokens/s, 1 client", "tokens/s, 8 clients"];
  return table(head, rows);
}

/** Return a table by steps: the student by default, at temperature 1, guided, and its teacher. */
export function steps(): string {
  const cells = cellsOf("quality.json");
  const show = (cell: Cell | undefined) => (cell ? `${perplexity(cell)}, ${cell.entropy.toFixed(3)}` : "");
  const rows = bySteps(cells).map((cell) => {
    const count = cell.request!.steps!;
    const others = [
      `${count} steps, 1`,
      `${count} steps, 1, random order`,
      `${count} steps, guided`,
      `teacher, ${count} steps, 0.85`,
    ];
    return [count, ...[cell, ...others.map((wanted) => cells.find(({ name }) => name === wanted))].map(show)];
  });
  return table(
    ["steps", "student", "at temperature 1", "at 1 in random order", "guided", "teacher at 0.85"],
    rows,
  );
}

/** Return a table of what is drawn by temperature and top_p, and of held-out text. */
export function temperatures(): string {
  const rows = cellsOf("quality.json")
    .filter(({ name, series }) => series !== undefined || name.startsWith("held-out"))
    .map((cell) => {
      const { distinct, triples, repeated, unique } = cell.words;
      return [
        cell.name,
        perplexity(cell),
        cell.entropy.toFixed(3),
        ...[distinct, triples, repeated, unique].map(percent),
      ];
    });
  const head = ["samples", "perplexity (95%)", "entropy", "distinct", "triples", "repeated", "unique"];
  return table(head, rows);
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

/** Return a table of what the own judge and one from outside say. */
export function outside(): string {
  const rows = cellsOf("outside.json").map((cell) => [
    cell.name,
    perplexity(cell),
    perplexity(cell, 1),
    cell.entropy.toFixed(3),
    ...[cell.words.distinct, cell.words.unique].map(percent),
  ]);
  return table(["samples", "stories-judge", "SmolLM2-135M", "entropy", "distinct", "unique"], rows);
}

/** Return a table of the same samples in float32 and int8. */
export function int8(): string {
  const rows = cellsOf("int8.json").map((cell) => [cell.name, perplexity(cell), cell.entropy.toFixed(3)]);
  return table(["samples", "perplexity (95%)", "entropy"], rows);
}

/** A set of sequences that the training code's `didi.tools.proteins.evaluate` measured. */
interface Sequences {
  sampler: string;
  steps: number | null;
  samples: number;
  generative_perplexity: number;
  generative_perplexity_interval: [low: number, high: number];
  entropy: number;
  with_family: number;
  near_training: number;
  identity: number | null;
  composition: number;
  length: number;
  length_deviation: number;
  unended: number;
}

/** Return a table of what the model of proteins writes, and of what it is compared with. */
export function proteins(): string {
  const file = join(PACKAGE_ROOT, "models", "proteins-didi", "card", "figures.json");
  const rows = (JSON.parse(readFileSync(file, "utf8")) as Sequences[]).map((set) => {
    const [low, high] = set.generative_perplexity_interval.map((bound) => bound.toFixed(2));
    return [
      { plain: "student", rgas: "student, guided" }[set.sampler] ?? set.sampler,
      set.steps ?? "",
      set.samples,
      `${set.generative_perplexity.toFixed(2)} (${low} to ${high})`,
      set.entropy.toFixed(3),
      percent(set.with_family),
      percent(set.near_training),
      set.identity === null ? "" : percent(set.identity),
      set.composition.toFixed(4),
      `${set.length.toFixed(0)} ± ${set.length_deviation.toFixed(0)}`,
      percent(set.unended),
    ];
  });
  const head = ["sequences of", "steps", "number", "perplexity (95%)", "entropy", "Pfam family"];
  return table([...head, "near training", "identity", "composition", "length", "unended"], rows);
}
