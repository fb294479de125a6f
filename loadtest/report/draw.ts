/** Draws points as an SVG picture. */

import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { ticksOf } from "./ticks.ts";

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
export interface Point {
  x: number;
  y: number;
  low?: number;
  high?: number;
  series: string;
  label?: string;
}

/** Titles and axes of a picture. An axis starts at 0 unless it is logarithmic or `zero` is false. */
export interface Picture {
  title: string;
  subtitle?: string;
  x: { title: string; log?: boolean; zero?: boolean; values?: number[] };
  y: { title: string; log?: boolean };
  legend: string;
  /** A horizontal line. */
  limit?: { y: number; label: string };
}

/**
 * Return a picture of points, with the range of each as a bar; those of a series are joined in order of x.
 */
export function draw(points: readonly Point[], picture: Picture): Promise<string> {
  const series = [...new Set(points.map((point) => point.series))].toSorted((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  );
  const scale = ({ log, zero = true }: { log?: boolean; zero?: boolean }) =>
    log ? { type: "log" as const, nice: false } : { zero };
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
    scale: { ...scale(picture.x), padding: 12 },
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
    scale: { ...scale(picture.y), padding: points.some(({ label }) => label) ? 24 : 12 },
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
  return svgOf(spec);
}

/** Return a picture of Vega-Lite as SVG, drawn without a browser. */
export async function svgOf(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return svg;
}
