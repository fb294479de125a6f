/** Draws a picture of Vega-Lite as SVG, without a browser. */

import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";

export async function svgOf(spec: TopLevelSpec): Promise<string> {
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return svg;
}
