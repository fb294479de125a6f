/** The form with the shared fields of the runs. */

import { find } from "../dom.js";
import { isTemplate } from "./request.js";

/** @typedef {import("./settings.js").Settings} Settings */

/** Most digits of a seed that the page draws, short enough to type. */
const DRAWN_SEEDS = 1_000_000;

/** The shared fields. Calls `changed` after a change, `submitted` to run and `cancelled` to stop. */
export class Form {
  #form = find(document, "#ask", HTMLFormElement);
  #prompt = find(document, "#prompt", HTMLTextAreaElement);
  #length = find(document, "#length", HTMLInputElement);
  #temperature = find(document, "#temperature", HTMLInputElement);
  #seed = find(document, "#seed", HTMLInputElement);
  #compare = find(document, "#compare", HTMLInputElement);
  #submit = find(document, "#generate", HTMLButtonElement);
  #running = false;

  /** @param {{ changed: () => void, submitted: () => void, cancelled: () => void }} listeners */
  constructor({ changed, submitted, cancelled }) {
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
    return {
      prompt: this.#prompt.value,
      length: this.#length.valueAsNumber || 1,
      temperature: this.#temperature.valueAsNumber || 0,
      seed: this.#seed.valueAsNumber || 0,
    };
  }

  /** @param {Settings} settings */
  set settings({ prompt, length, temperature, seed, runs }) {
    this.#prompt.value = prompt;
    this.#length.value = String(length);
    this.#temperature.value = String(temperature);
    this.#seed.value = String(seed);
    this.#compare.checked = runs.length > 1;
    this.#show();
  }

  /** Set the context length of the model. @param {number} tokens */
  set context(tokens) {
    this.#length.max = String(tokens);
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
