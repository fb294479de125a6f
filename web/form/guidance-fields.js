/** The guidance settings of a run; an empty field uses the model's setting. */

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
   * @param {() => void} changed Called after a change.
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
    // A hidden field must not block the form.
    for (const input of this.#inputs) input.disabled = !shown;
  }

  /** Show the model's settings in empty fields. @param {Schemas["ModelInfo"]["guidance"]} own */
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
    // If only one end of the scale is set, the other is the model's.
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
