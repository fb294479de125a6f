/** Draws the pictures of a result as SVG with Vega-Lite, without a browser. */

import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { budgetCells, clientsOf, commonest, plainCells } from "./select.ts";
import { ticksOf } from "./ticks.ts";
import type { Cell, Results } from "./types.ts";

/** Colours from dark to light; series also differ in shape and dash. */
const GREYS = ["#111111", "#2f6f9f", "#b0561f", "#5f8f3f", "#8a5fa8", "#777777", "#a08a00", "#4f9f9f"];
const SHAPES = [
  "circle",
  "square",
  "triangle-up",
  "diamond",
  "cross",
  "triangle-down",
  "triangle-right",
  "stroke",
];
const DASHES = [
  [1, 0],
  [6, 3],
  [2, 2],
  [8, 3, 2, 3],
  [4, 4],
  [10, 4],
  [1, 3],
  [6, 2, 1, 2],
];

const WIDTH = 520;
const RANGE = "Median of the repeats; bars from the lowest to the highest";

interface Point {
  x: number;
  y: number;
  low?: number;
  high?: number;
  series: string;
  label?: string;
}

interface Picture {
  title: string;
  subtitle?: string;
  x: { title: string; log?: boolean; values?: number[] };
  y: { title: string; log?: boolean };
  legend: string;
  /** A horizontal line. */
  limit?: { y: number; label: string };
}

/** Draw points, with the range of each as a bar. */
async function draw(points: readonly Point[], picture: Picture): Promise<string> {
  const series = [...new Set(points.map((point) => point.series))].toSorted((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  );
  const scale = (log: boolean | undefined) => (log ? { type: "log" as const, nice: false } : { zero: true });
  const axis = (values: number[] | undefined) => ({
    ...(values && { values }),
    grid: true,
    gridColor: "#e4e4e4",
    format: "~g",
    labelOverlap: true as const,
  });
  const heights = [
    ...points.flatMap(({ y, low, high }) => [low ?? y, high ?? y]),
    ...(picture.limit ? [picture.limit.y] : []),
  ];
  const x = {
    field: "x",
    type: "quantitative" as const,
    title: picture.x.title,
    scale: { ...scale(picture.x.log), padding: 12 },
    axis: axis(
      picture.x.log
        ? ticksOf(
            points.map((point) => point.x),
            picture.x.values,
          )
        : undefined,
    ),
  };
  const y = {
    type: "quantitative" as const,
    title: picture.y.title,
    scale: { ...scale(picture.y.log), padding: points.some(({ label }) => label) ? 24 : 12 },
    axis: axis(picture.y.log ? ticksOf(heights) : undefined),
  };
  // Labels of points on the right are left of the point, so that they stay inside.
  const [first, last] = [points.at(0)?.x ?? 1, points.at(-1)?.x ?? 1];
  const labels = (right: boolean) => ({
    transform: [
      { filter: `isValid(datum.label) && ${right ? "" : "!"}(datum.x > ${Math.sqrt(first * last)})` },
    ],
    mark: {
      ...{ type: "text" as const, dy: -9, fontSize: 11 },
      ...(right ? { dx: -8, align: "right" as const } : { dx: 8, align: "left" as const }),
    },
    encoding: { x, y: { field: "y", ...y }, text: { field: "label" } },
  });
  const by = { field: "series", type: "nominal" as const, title: picture.legend, sort: null };
  const color = { ...by, scale: { domain: series, range: GREYS } };
  const spec: TopLevelSpec = {
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    width: WIDTH,
    height: 320,
    background: "white",
    title: {
      ...{ text: picture.title, anchor: "start" as const, fontSize: 13, subtitleFontSize: 11 },
      ...(picture.subtitle && { subtitle: picture.subtitle }),
    },
    data: { values: [...points] },
    layer: [
      // A mark for each series: with a scale, the dashes would also be drawn around the symbols of the
      // legend.
      ...series.map((name, i) => ({
        transform: [{ filter: { field: "series", equal: name } }],
        mark: { type: "line" as const, strokeWidth: 1.5, strokeDash: DASHES[i % DASHES.length]! },
        encoding: { x, y: { field: "y", ...y }, color },
      })),
      ...(points.some(({ low }) => low !== undefined)
        ? [
            {
              mark: { type: "rule" as const, strokeWidth: 1.5 },
              encoding: { x, y: { field: "low", ...y }, y2: { field: "high" }, color },
            },
          ]
        : []),
      {
        mark: { type: "point" as const, filled: true, size: 55, opacity: 1 },
        encoding: {
          x,
          y: { field: "y", ...y },
          color,
          shape: { ...by, scale: { domain: series, range: SHAPES } },
        },
      },
      labels(false),
      labels(true),
      ...(picture.limit
        ? [
            {
              data: { values: [picture.limit] },
              mark: { type: "rule" as const, strokeDash: [3, 3], color: "#444444" },
              encoding: { y: { field: "y", ...y } },
            },
            {
              data: { values: [picture.limit] },
              mark: { type: "text" as const, align: "right" as const, dy: -6, dx: -4, fontSize: 11 },
              encoding: { x: { value: WIDTH }, y: { field: "y", ...y }, text: { field: "label" } },
            },
          ]
        : []),
    ],
    config: { font: "sans-serif", view: { stroke: "#888888" }, legend: { symbolSize: 90, labelLimit: 260 } },
  };
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return svg;
}

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
