/** The API key that the user enters; the tab keeps it until it is closed. */

import { find } from "../dom.js";

const NAME = "didi-serve-api-key";

/** Return the key. @returns {string | undefined} */
export function storedKey() {
  return sessionStorage.getItem(NAME) ?? undefined;
}

/** The dialog that asks for a key. */
export class KeyForm {
  #form = find(document, "#key-form", HTMLFormElement);
  #key = find(document, "#key", HTMLInputElement);
  #hint = find(document, "#key-hint", HTMLElement);

  /** @param {() => void} entered Called when a key was entered. */
  constructor(entered) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, this.#key.value.trim());
      this.#key.value = "";
      this.hide();
      entered();
    });
  }

  /** Ask for a key and show the reason. @param {string} why */
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
