/** The picture of replicas, queue age and latency under stepped load. */

import { svgOf } from "../report/draw.ts";
import type { Moment } from "./autoscale.ts";

const WIDTH = 640;

/** Return the picture as SVG. */
export function drawAutoscaling(moments: readonly Moment[]): Promise<string> {
  const panel = (field: keyof Moment, title: string, steps: boolean, last = false) => ({
    width: WIDTH,
    height: 110,
    mark: {
      type: "line" as const,
      strokeWidth: 1.5,
      color: "#2f6f9f",
      ...(steps && { interpolate: "step-after" as const }),
    },
    encoding: {
      x: {
        field: "seconds",
        type: "quantitative" as const,
        title: last ? "time (s)" : null,
        axis: { gridColor: "#e4e4e4", labels: last },
      },
      y: {
        field,
        type: "quantitative" as const,
        title,
        axis: { gridColor: "#e4e4e4", tickCount: 4, ...(field === "replicas" && { format: "d" }) },
      },
    },
  });
  return svgOf({
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    background: "white",
    title: { text: "Stepped load: replicas, queue age and latency", anchor: "start", fontSize: 13 },
    data: { values: [...moments] },
    spacing: 8,
    vconcat: [
      panel("rate", "requests/s", true),
      panel("replicas", "ready replicas", true),
      panel("age", "queue age (s)", false),
      panel("latency", "latency, p95 (s)", false, true),
    ],
    config: { font: "sans-serif", view: { stroke: "#888888" } },
  });
}
