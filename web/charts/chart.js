/** A small chart over the steps of a run. */

import { draw, find } from "../dom.js";
import { brief } from "../format.js";

const [WIDTH, HEIGHT] = [300, 72];

/**
 * One value of a step. `style` names how it is drawn: a `line` joins its points, the rest are marks.
 * @typedef {object} Series
 * @property {"area" | "line" | "second-line" | "candidate" | "chosen"} style
 * @property {[step: number, value: number][]} points In order of steps.
 */

/**
 * @typedef {object} Drawing
 * @property {Series[]} series
 * @property {number} steps The last step of the axis.
 * @property {[least: number, most: number]} range Of the values.
 * @property {number} cursor The step that is shown.
 * @property {string} reading The values at that step as text.
 */

/** A chart in a figure of the page; `draw` replaces its content. */
export class Chart {
  #svg = /** @type {SVGSVGElement} */ (
    draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })
  );

  /** @param {HTMLElement} figure */
  constructor(figure) {
    this.figure = figure;
    find(figure, ".plot", HTMLElement).append(this.#svg);
  }

  /** @param {Drawing} drawing */
  draw({ series, steps, range: [least, most], cursor, reading }) {
    const x = (/** @type {number} */ step) => (step / Math.max(1, steps)) * WIDTH;
    const y = (/** @type {number} */ value) =>
      HEIGHT - 3 - ((value - least) / (most - least || 1)) * (HEIGHT - 6);
    const shapes = series.flatMap(({ style, points }) => shapesOf(style, points, x, y));
    const at = x(cursor);
    shapes.push(draw("line", { class: "cursor", x1: at, x2: at, y1: 0, y2: HEIGHT }));
    this.#svg.replaceChildren(...shapes);
    find(this.figure, ".reading", HTMLElement).textContent = reading;
    find(this.figure, ".most", HTMLElement).textContent = brief(most);
    find(this.figure, ".least", HTMLElement).textContent = brief(least);
    const title = find(this.figure, ".chart-title", HTMLElement).textContent;
    this.#svg.setAttribute("aria-label", `${title} over ${steps} steps; at step ${cursor}: ${reading}`);
  }
}

/**
 * @param {Series["style"]} style
 * @param {Series["points"]} points
 * @param {(step: number) => number} x
 * @param {(value: number) => number} y
 * @returns {SVGElement[]}
 */
function shapesOf(style, points, x, y) {
  // A line of length 0 with round ends is a dot that keeps its shape when the chart is stretched.
  if (style === "candidate" || style === "chosen")
    return points.map(([step, value]) => draw("path", { class: style, d: `M${x(step)} ${y(value)}h0` }));
  const [first] = points;
  const last = points.at(-1);
  if (!first || !last) return [];
  const d = points.map(([step, value], i) => `${i === 0 ? "M" : "L"}${x(step)} ${y(value)}`).join("");
  const line = draw("path", { class: style === "area" ? "line" : style, d });
  if (style !== "area") return [line];
  return [draw("path", { class: "area", d: `${d}L${x(last[0])} ${HEIGHT}L${x(first[0])} ${HEIGHT}Z` }), line];
}
