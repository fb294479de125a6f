/** Shows details of the token under the pointer or reached by the arrow keys. */

import { find, make } from "../dom.js";
import { percent } from "../format.js";
import { tokenAt } from "./run.js";

/** @typedef {import("./canvas-view.js").CanvasView} CanvasView */
/** @typedef {import("./run.js").Run} Run */

const KEYS = new Map([
  ["ArrowRight", 1],
  ["ArrowLeft", -1],
  ["ArrowDown", 10],
  ["ArrowUp", -10],
]);

/** One tooltip for the whole page. */
class Bubble {
  #root = find(document, "#bubble", HTMLElement);

  /**
   * @param {Element} anchor
   * @param {string[]} lines The first is the token.
   */
  show(anchor, lines) {
    const root = this.#root;
    root.replaceChildren(...lines.map((line, i) => make("span", i === 0 ? "bubble-token" : "", line)));
    root.hidden = false;
    const at = anchor.getBoundingClientRect();
    const { width, height } = root.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - width / 2), innerWidth - width - 8);
    const top = at.top - height - 8 < 8 ? at.bottom + 8 : at.top - height - 8;
    root.style.left = `${left}px`;
    root.style.top = `${top}px`;
  }

  hide() {
    this.#root.hidden = true;
  }
}

const bubble = new Bubble();
addEventListener("scroll", () => bubble.hide(), { passive: true });

/**
 * Let users inspect the tokens of a canvas by pointer, touch and keyboard.
 * @param {CanvasView} view
 * @param {() => { run: Run | undefined, step: number }} shown The run and step of the canvas.
 */
export function inspect(view, shown) {
  const { root } = view;
  root.tabIndex = 0;
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "Canvas: the arrow keys look at its tokens");
  let active = -1;

  const leave = () => {
    view.cellAt(active)?.classList.remove("active");
    active = -1;
    bubble.hide();
  };

  /** @param {number} place */
  const look = (place) => {
    leave();
    const cell = view.cellAt(place);
    if (!cell) return;
    active = place;
    cell.classList.add("active");
    bubble.show(cell.querySelector(".ink") ?? cell, describe(place, shown()));
  };

  root.addEventListener("pointerover", ({ target }) => {
    const place = view.placeOf(target);
    if (place === undefined) leave();
    else if (place !== active) look(place);
  });
  // A touch ends with a leave event: the tooltip stays until the next touch.
  root.addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType !== "touch") leave();
  });
  addEventListener("pointerdown", ({ target }) => {
    if (active >= 0 && view.placeOf(target) === undefined) leave();
  });
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    const by = KEYS.get(event.key);
    if (by === undefined) return;
    event.preventDefault();
    const last = root.querySelectorAll(".cell").length - 1;
    look(Math.min(last, Math.max(0, active + by)));
  });
}

/**
 * @param {number} place
 * @param {{ run: Run | undefined, step: number }} shown
 * @returns {string[]}
 */
function describe(place, { run, step }) {
  const token = tokenAt(run?.cells[place] ?? [], step);
  if (!run || !token) return ["masked", `mask ${place + 1} of the canvas`];
  return [
    token.text === "" ? "end of text" : `“${token.text.replaceAll("\n", "↵").replaceAll(" ", "␣")}”`,
    `probability ${percent(token.logprob)}`,
    `step ${token.step} of ${run.steps} · position ${token.position} · id ${token.token}`,
  ];
}
