/** The API key of a server that asks for one: typed into the page, kept until the tab is closed. */

import { find } from "../dom.js";

const NAME = "didi-serve-api-key";

/** The key in use. @returns {string | undefined} */
export function storedKey() {
  return sessionStorage.getItem(NAME) ?? undefined;
}

/** Asks for a key where the server does. */
export class KeyForm {
  #form = find(document, "#key-form", HTMLFormElement);
  #key = find(document, "#key", HTMLInputElement);
  #hint = find(document, "#key-hint", HTMLElement);

  /** @param {() => void} entered Called when there is another key to try. */
  constructor(entered) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, this.#key.value.trim());
      this.#key.value = "";
      this.hide();
      entered();
    });
  }

  /** Asks, and says why. @param {string} why */
  show(why) {
    sessionStorage.removeItem(NAME);
    this.#hint.textContent = why;
    this.#form.hidden = false;
    this.#key.focus();
  }

  hide() {
    this.#form.hidden = true;
  }
}
