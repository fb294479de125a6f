/** The pictures of a result. */

import { draw, type Point } from "./draw.ts";
import { budgetCells, clientsOf, commonest, plainCells } from "./select.ts";
import type { Cell, Results } from "./types.ts";

const RANGE = "Median of the repeats; bars from the lowest to the highest";

const spreadOf = (cell: Cell, figure: string) => {
  const { median: y, lowest: low, highest: high } = cell.summary.figures[figure]!;
  return { y, low, high };
};
const has = (figure: string) => (cell: Cell) => cell.summary.figures[figure] !== undefined;
const plural = (count: number, noun: string) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const guidedName = ({ shapes }: Cell) => (shapes[0]!.guidance === "rgas" ? ", guided" : "");
const byX = (points: Point[]) => points.toSorted((a, b) => a.x - b.x);

function againstSteps(results: Results): Promise<string> | undefined {
  const cells = budgetCells(results).filter(has("tokens_per_second"));
  const length = cells[0]?.shapes[0]?.length;
  const all = cells.map((cell) => ({
    x: cell.shapes[0]!.steps!,
    ...spreadOf(cell, "tokens_per_second"),
    series: `${plural(clientsOf(cell)!, "client")}${guidedName(cell)}`,
  }));
  // A series with one budget shows no dependence.
  const points = all.filter(
    ({ series }) => new Set(all.filter((p) => p.series === series).map((p) => p.x)).size > 1,
  );
  if (points.length === 0) return undefined;
  return draw(byX(points), {
    title: `${results.model.name}: throughput against step budget, ${length} new tokens a request`,
    x: { title: "step budget (steps)", log: true, values: [...new Set(points.map(({ x }) => x))] },
    y: { title: "throughput (tokens/s)", log: true },
    ...{ legend: "closed loop", subtitle: RANGE },
  });
}

function againstRate(results: Results): Promise<string> | undefined {
  const cells = results.cells.filter(
    ({ load, summary }) => load.kind === "open" && summary.times_ms.latency !== undefined,
  );
  const points = cells.map((cell) => ({
    x: cell.load.kind === "open" ? cell.load.rate : 0,
    y: cell.summary.times_ms.latency!.p99,
    series: cell.shapes.map(({ name }) => name).join(" + "),
  }));
  if (points.length === 0) return undefined;
  const limit = results.settings.p99_limit_ms;
  return draw(byX(points), {
    title: `${results.model.name}: latency against arrival rate`,
    subtitle: "Counted from when each request should have been sent; all repeats together",
    x: { title: "arrival rate (requests/s)", log: true },
    y: { title: "latency, p99 (ms)", log: true },
    legend: "Poisson arrivals",
    limit: { y: limit, label: `limit: ${limit} ms` },
  });
}

function againstClients(results: Results): Promise<string> | undefined {
  const cells = budgetCells(results).filter(has("latency_p50_ms"));
  const all = cells.map((cell) => ({
    x: clientsOf(cell)!,
    ...spreadOf(cell, "latency_p50_ms"),
    series: `${plural(cell.shapes[0]!.steps!, "step")}${guidedName(cell)}`,
  }));
  const length = cells[0]?.shapes[0]?.length;
  const points = all.filter(({ series }) => all.filter((point) => point.series === series).length > 1);
  if (points.length === 0) return undefined;
  return draw(byX(points), {
    title: `${results.model.name}: latency against concurrency, ${length} new tokens a request`,
    x: { title: "concurrent clients", log: true, values: [...new Set(points.map(({ x }) => x))] },
    y: { title: "latency, p50 (ms)", log: true },
    ...{ legend: "closed loop", subtitle: RANGE },
  });
}

function againstQuality(results: Results): Promise<string> | undefined {
  const cells = budgetCells(results).filter(has("tokens_per_second"));
  const clients = Math.max(...(cells.length > 0 ? cells.map((cell) => clientsOf(cell)!) : [0]));
  const busiest = commonest(cells.map((cell) => clientsOf(cell)!).filter((count) => count > clients / 4));
  const points: Point[] = cells
    .filter((cell) => clientsOf(cell) === busiest)
    .flatMap((cell) => {
      const { steps, guidance } = cell.shapes[0]!;
      const sampler = guidance === "rgas" ? "rgas" : "plain";
      const known = results.quality.find((q) => q.sampler === sampler && q.steps === steps);
      if (!known) return [];
      const series = sampler === "rgas" ? "student, guided" : "student";
      const x = cell.summary.figures.tokens_per_second!.median;
      return [{ x, y: known.perplexity, series, label: plural(steps!, "step") }];
    });
  const peer = results.quality.find(({ sampler }) => sampler === "autoregressive");
  if (peer)
    for (const side of results.sides)
      for (const cell of plainCells(results, side.name))
        if (
          cell.shapes[0]!.steps === undefined &&
          cell.shapes[0]!.length === cells[0]!.shapes[0]!.length &&
          clientsOf(cell) === busiest &&
          has("tokens_per_second")(cell)
        )
          points.push({
            x: cell.summary.figures.tokens_per_second!.median,
            y: peer.perplexity,
            series: side.title,
          });
  if (points.length < 2) return undefined;
  return draw(byX(points), {
    title: `${results.model.name}: judged quality against throughput, ${plural(busiest!, "client")}`,
    x: { title: "throughput (tokens/s)", log: true },
    y: { title: "judged perplexity (lower is better)", log: true },
    legend: "model",
  });
}

const DRAWN: Record<string, (results: Results) => Promise<string> | undefined> = {
  "throughput-steps.svg": againstSteps,
  "latency-rate.svg": againstRate,
  "latency-concurrency.svg": againstClients,
  "quality-throughput.svg": againstQuality,
};

/** The names of all pictures. */
export const PICTURES = Object.keys(DRAWN);

/** Return the pictures by file name; those without figures are left out. */
export async function pictures(results: Results): Promise<Map<string, string>> {
  const made = new Map<string, string>();
  for (const [name, drawIt] of Object.entries(DRAWN)) {
    const svg = await drawIt(results);
    if (svg) made.set(name, svg);
  }
  return made;
}
