/** Shows a canvas: fixed text, faint blocks for masks, revealed tokens tinted by their probability. */

import { make } from "../dom.js";
import { inkOf, shadeOf } from "../format.js";
import { tokenAt } from "./run.js";

/** @typedef {import("../form/request.js").Piece} Piece */
/** @typedef {import("./run.js").Revealed} Revealed */

/** The canvas of one run; `place` is the index of a mask, from 0. */
export class CanvasView {
  /** An element for each mask. @type {HTMLElement[]} */
  #cells = [];
  /** The content of each element, so that only changes update the page. @type {string[]} */
  #shown = [];

  /**
   * @param {HTMLElement} root
   * @param {() => number | undefined} endOfText Id of the end of text.
   */
  constructor(root, endOfText) {
    this.root = root;
    this.endOfText = endOfText;
  }

  /** Show a new canvas with all its masks. @param {Piece[]} pieces */
  reset(pieces) {
    this.#cells = [];
    const parts = pieces.flatMap((piece) => {
      if ("text" in piece) return [make("span", "fixed", piece.text)];
      return Array.from({ length: piece.masks }, () => {
        const cell = make("span", "cell");
        cell.dataset.place = String(this.#cells.length);
        this.#cells.push(cell);
        return cell;
      });
    });
    this.#shown = this.#cells.map(() => "");
    this.root.replaceChildren(...parts);
    this.show([], 0);
  }

  /** Return the place of an element of the canvas, if it was a mask. @param {EventTarget | null} target */
  placeOf(target) {
    const cell = target instanceof Element ? target.closest(".cell") : null;
    return cell instanceof HTMLElement ? Number(cell.dataset.place) : undefined;
  }

  /** Return the element at a place. @param {number} place */
  cellAt(place) {
    return this.#cells[place];
  }

  /**
   * Show the canvas after a step.
   * @param {readonly (readonly Revealed[])[]} revealed By place; later tokens set the width of their masks.
   * @param {number} step 0 shows every mask.
   * @param {number} [last] Last step of a finished run: its reveals are not marked as new.
   */
  show(revealed, step, last) {
    let ended = false;
    for (const [place, cell] of this.#cells.entries()) {
      const tokens = revealed[place] ?? [];
      const shown = tokenAt(tokens, step);
      const visible = shown !== undefined;
      const token = shown ?? tokens.find((later) => later.step > step) ?? tokens.at(-1);
      const isEnd = visible && shown.token === this.endOfText();
      const kind = !visible ? "mask" : isEnd ? "token end" : "token";
      const classes = ["cell", kind];
      if (visible && shown.step === step && step !== last) classes.push("new");
      if (!visible && tokens.some(({ until }) => until === step)) classes.push("again");
      if (visible && shown.text.trim() === "") classes.push("blank");
      if (ended) classes.push("after");
      ended ||= isEnd;
      const key = `${classes.join(" ")} ${token?.token}`;
      if (this.#shown[place] === key) continue;
      this.#shown[place] = key;
      cell.className = classes.join(" ");
      // A no-break space puts the block at the place of a word.
      if (!token) this.#fill(cell, " ", "\u00a0", "");
      else if (isEnd) this.#fill(cell, " ", "end", "");
      else this.#fill(cell, ...inkOf(token.text));
      cell.classList.toggle("sized", token !== undefined);
      if (visible) cell.dataset.shade = String(shadeOf(shown.logprob));
      else delete cell.dataset.shade;
    }
  }

  /**
   * @param {HTMLElement} cell
   * @param {string} before
   * @param {string} text
   * @param {string} after
   */
  #fill(cell, before, text, after) {
    cell.replaceChildren(before, make("span", "ink", text), after);
  }
}
