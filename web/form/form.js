/** The form with the shared fields of the runs. */

import { find, make } from "../dom.js";
import { isTemplate } from "./request.js";

/** @typedef {import("./request.js").Schemas} Schemas */
/** @typedef {import("./settings.js").Settings} Settings */

/** Most digits of a seed that the page draws, short enough to type. */
const DRAWN_SEEDS = 1_000_000;

/**
 * The shared fields. Calls `changed` after a change, `chosen` after one of the model, `submitted` to run and
 * `cancelled` to stop.
 */
export class Form {
  #form = find(document, "#ask", HTMLFormElement);
  #model = find(document, "#model", HTMLSelectElement);
  /** The model of a link, until the models of the server are known. @type {string | undefined} */
  #linked;
  #prompt = find(document, "#prompt", HTMLTextAreaElement);
  #length = find(document, "#length", HTMLInputElement);
  #temperature = find(document, "#temperature", HTMLInputElement);
  #seed = find(document, "#seed", HTMLInputElement);
  #compare = find(document, "#compare", HTMLInputElement);
  #submit = find(document, "#generate", HTMLButtonElement);
  #running = false;

  /** @param {Record<"changed" | "chosen" | "submitted" | "cancelled", () => void>} listeners */
  constructor({ changed, chosen, submitted, cancelled }) {
    this.#model.addEventListener("change", chosen);
    this.#form.addEventListener("input", () => {
      this.#show();
      changed();
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#running) cancelled();
      else submitted();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      if (!this.#running) this.#form.requestSubmit();
    });
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#running) cancelled();
    });
    find(document, "#draw-seed", HTMLButtonElement).addEventListener("click", () => {
      this.#seed.value = String(Math.floor(Math.random() * DRAWN_SEEDS));
      changed();
    });
    for (const example of document.querySelectorAll("button.example"))
      example.addEventListener("click", () => {
        this.#prompt.value = example.textContent ?? "";
        this.#show();
        changed();
        this.#prompt.focus();
      });
  }

  /** Whether two runs are compared. */
  get compare() {
    return this.#compare.checked;
  }

  /** Return whether every field is valid; the browser shows the first that is not. */
  get valid() {
    return this.#form.reportValidity();
  }

  /** @returns {Omit<Settings, "runs">} */
  get settings() {
    const model = this.#linked ?? this.#model.value;
    const temperature = this.#temperature.valueAsNumber;
    return {
      ...(model && { model }),
      prompt: this.#prompt.value,
      length: this.#length.valueAsNumber || 1,
      ...(!Number.isNaN(temperature) && { temperature }),
      seed: this.#seed.valueAsNumber || 0,
    };
  }

  /** @param {Settings} settings */
  set settings({ model, prompt, length, temperature, seed, runs }) {
    this.#linked = model;
    const names = Array.from(this.#model.options, ({ value }) => value);
    if (names.length > 0) this.models = names;
    this.#prompt.value = prompt;
    this.#length.value = String(length);
    this.#temperature.value = temperature === undefined ? "" : String(temperature);
    this.#seed.value = String(seed);
    this.#compare.checked = runs.length > 1;
    this.#show();
  }

  /** Offer the models of the server; the chosen one stays, or that of the link. @param {string[]} names */
  set models(names) {
    const chosen = this.#linked ?? this.#model.value;
    this.#linked = undefined;
    const offered = names.length > 1 ? names : [];
    this.#model.replaceChildren(...offered.map((name) => make("option", "", name)));
    if (names.includes(chosen)) this.#model.value = chosen;
    /** @type {HTMLElement} */ (this.#model.parentElement).hidden = offered.length === 0;
  }

  /** Take over what depends on the model. @param {Schemas["ModelInfo"]} info */
  set info({ context_length, defaults }) {
    this.#length.max = String(context_length);
    this.#temperature.placeholder = String(defaults.temperature);
  }

  /** Let the button cancel while a request runs. @param {boolean} running */
  set running(running) {
    this.#running = running;
    this.#submit.textContent = running ? "Cancel" : "Generate";
    this.#submit.classList.toggle("cancels", running);
    // Cancelling needs no valid fields.
    this.#submit.formNoValidate = running;
  }

  #show() {
    this.#length.disabled = isTemplate(this.#prompt.value);
  }
}
