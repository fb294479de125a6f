/** The panel of one run: settings, canvas, scrubber, charts and figures. */

import { Charts } from "../charts/charts.js";
import { figuresOf, statusOf } from "../charts/figures.js";
import { find, make } from "../dom.js";
import { GuidanceFields } from "../form/guidance-fields.js";
import { MAX_STEPS } from "../form/settings.js";
import { CanvasView } from "./canvas-view.js";
import { inspect } from "./inspector.js";
import { Player } from "./player.js";

/** @typedef {import("../form/request.js").Piece} Piece */
/** @typedef {import("../form/request.js").Schemas} Schemas */
/** @typedef {import("./run.js").Run} Run */
/** @typedef {import("../form/settings.js").RunSettings} RunSettings */

/**
 * Callbacks and values that panels share.
 * @typedef {object} Page
 * @property {() => void} changed Called after a change of the settings.
 * @property {() => number} nats Top of the axis of surprisal, nats, the same for runs side by side.
 * @property {() => number | undefined} endOfText Id of the end of text, when the model is known.
 */

/** Shows one run at a time. */
export class Panel {
  /** @type {Run | undefined} */
  run;
  #root;
  #view;
  #charts;
  #player;
  #steps;
  #guided;
  #guidance;
  #remask;
  #canGuide = false;
  #page;

  /**
   * @param {string} name A or B.
   * @param {Page} page
   */
  constructor(name, page) {
    const copy = find(document, "#panel", HTMLTemplateElement).content.cloneNode(true);
    this.#root = find(/** @type {DocumentFragment} */ (copy), ".panel", HTMLElement);
    const root = this.#root;
    root.dataset.name = name;
    root.setAttribute("aria-label", `Run ${name}`);
    find(root, ".name", HTMLElement).textContent = name;
    this.#page = page;
    this.#steps = find(root, ".steps", HTMLInputElement);
    this.#guided = find(root, ".guided", HTMLInputElement);
    this.#remask = find(root, ".remask", HTMLInputElement);
    this.#view = new CanvasView(find(root, ".canvas", HTMLElement), page.endOfText);
    this.#charts = new Charts(root);
    this.#player = new Player(root, () => this.#draw());
    inspect(this.#view, () => ({ run: this.run, step: this.#player.step }));
    this.#guidance = new GuidanceFields(root, page.changed);
    for (const input of [this.#steps, this.#guided, this.#remask])
      input.addEventListener("input", () => {
        this.#showSettings();
        page.changed();
      });
    this.#showSettings();
  }

  get element() {
    return this.#root;
  }

  /** @returns {RunSettings} */
  get settings() {
    const guidance = this.#guidance.settings;
    return {
      steps: this.#steps.valueAsNumber,
      guided: this.#guided.checked,
      ...(guidance && { guidance }),
      ...(this.#remask.valueAsNumber > 0 && { remask: this.#remask.valueAsNumber }),
    };
  }

  /** @param {RunSettings} settings */
  set settings({ steps, guided, guidance, remask }) {
    this.#steps.value = String(steps);
    this.#guided.checked = guided;
    this.#remask.value = String(remask ?? "");
    this.#guidance.settings = guidance;
    this.#showSettings();
  }

  /** Enable guidance, or show why it is not available. @param {Schemas["ModelInfo"]["guidance"]} guidance */
  set guidance(guidance) {
    this.#canGuide = guidance !== undefined;
    find(this.#root, ".guided-hint", HTMLElement).textContent = guidance
      ? "by its discriminator"
      : "this model has no discriminator";
    this.#guidance.own = guidance;
    this.#showSettings();
  }

  /** Show a canvas before a run. @param {Piece[]} pieces */
  preview(pieces) {
    this.run = undefined;
    this.#view.reset(pieces);
    this.#player.clear();
    this.#draw();
  }

  /** Show a run. @param {Run} run */
  start(run) {
    this.run = run;
    this.#view.reset(run.pieces);
    this.#player.follow(run);
    this.#draw();
  }

  /** Update the panel from the run. */
  update() {
    this.#player.wake();
    this.#draw();
  }

  #showSettings() {
    // A link may request guidance that this model lacks: the box can be cleared, and the server reports the
    // error.
    this.#guided.disabled = !this.#canGuide && !this.#guided.checked;
    this.#guidance.shown = this.#guided.checked;
    const steps = this.#steps;
    find(this.#root, ".steps-value", HTMLElement).textContent = steps.value;
    steps.style.setProperty("--share", String((steps.valueAsNumber - 1) / (MAX_STEPS - 1)));
  }

  #draw() {
    const { run } = this;
    const root = this.#root;
    const { step } = this.#player;
    root.dataset.state = run?.state ?? "idle";
    root.dataset.step = String(step);
    find(root, ".status", HTMLElement).textContent = statusOf(run, step);
    const failure = find(root, ".failure", HTMLElement);
    failure.hidden = !run?.failure;
    if (run?.failure && failure.textContent === "") {
      failure.append(make("strong", "", `${run.failure.title}.`), ` ${run.failure.detail}`);
    } else if (!run?.failure) failure.replaceChildren();
    find(root, ".results", HTMLElement).hidden = !run || run.figures.length === 0;
    if (!run) return;
    this.#view.show(run.cells, step, run.over ? run.reached : undefined);
    this.#charts.draw(run, step, this.#page.nats());
    for (const [name, value] of Object.entries(figuresOf(run)))
      find(root, `[data-figure="${name}"]`, HTMLElement).textContent = value;
  }
}
