/** How a run is guided: fields that are empty take the model's own settings. */

import { find } from "../dom.js";

/** @typedef {import("./request.js").Schemas} Schemas */
/** @typedef {import("./settings.js").GuidanceSettings} GuidanceSettings */

/** The fields of one panel. */
export class GuidanceFields {
  #root;
  /** First and last scale, candidates, re-ranked share. */
  #inputs;

  /**
   * @param {HTMLElement} panel
   * @param {() => void} changed Called when a field is.
   */
  constructor(panel, changed) {
    this.#root = find(panel, ".guidance", HTMLElement);
    this.#inputs = [".scale-first", ".scale-last", ".candidates", ".rerank-ratio"].map((name) =>
      find(this.#root, name, HTMLInputElement),
    );
    this.#root.addEventListener("input", changed);
  }

  /** @param {boolean} shown */
  set shown(shown) {
    this.#root.hidden = !shown;
    // What is not seen shall not keep the form from being sent.
    for (const input of this.#inputs) input.disabled = !shown;
  }

  /** The model's own settings, shown in empty fields. @param {Schemas["ModelInfo"]["guidance"]} own */
  set own(own) {
    this.#write("placeholder", own);
  }

  /** @returns {GuidanceSettings | undefined} */
  get settings() {
    const [first, last, candidates, rerank_ratio] = this.#inputs.map((input) =>
      input.value === "" ? undefined : input.valueAsNumber,
    );
    /** @type {GuidanceSettings} */
    const settings = {};
    // One end of the scale alone: the other is the model's.
    const own = this.#inputs.map((input) => Number(input.placeholder));
    if (first !== undefined || last !== undefined)
      settings.scale = [first ?? own[0] ?? 0, last ?? own[1] ?? 0];
    if (candidates !== undefined) settings.candidates = candidates;
    if (rerank_ratio !== undefined) settings.rerank_ratio = rerank_ratio;
    return Object.keys(settings).length > 0 ? settings : undefined;
  }

  /** @param {GuidanceSettings | undefined} settings */
  set settings(settings) {
    this.#write("value", settings);
  }

  /**
   * @param {"value" | "placeholder"} property
   * @param {{ scale?: number[], candidates?: number, rerank_ratio?: number } | undefined} settings
   */
  #write(property, { scale, candidates, rerank_ratio } = {}) {
    const values = [scale?.[0], scale?.[1], candidates, rerank_ratio];
    for (const [i, input] of this.#inputs.entries()) input[property] = String(values[i] ?? "");
  }
}
