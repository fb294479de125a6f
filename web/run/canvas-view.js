/** A canvas as text: fixed text, faint blocks for masks, revealed tokens tinted by their probability. */

import { make } from "../dom.js";
import { inkOf, shadeOf } from "../format.js";

/** @typedef {import("../form/request.js").Piece} Piece */
/** @typedef {import("./run.js").Revealed} Revealed */

/** The canvas of one run in the element given; `place` counts the masks of the canvas from 0. */
export class CanvasView {
  /** An element for each mask. @type {HTMLElement[]} */
  #cells = [];
  /** What each element shows, so that only changes touch the page. @type {string[]} */
  #shown = [];

  /**
   * @param {HTMLElement} root
   * @param {() => number | undefined} endOfText The token that ends a text.
   */
  constructor(root, endOfText) {
    this.root = root;
    this.endOfText = endOfText;
  }

  /** Starts over with a canvas on which every mask stands. @param {Piece[]} pieces */
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

  /** The place of an element of the canvas, if a mask stood there. @param {EventTarget | null} target */
  placeOf(target) {
    const cell = target instanceof Element ? target.closest(".cell") : null;
    return cell instanceof HTMLElement ? Number(cell.dataset.place) : undefined;
  }

  /** The element at a place. @param {number} place */
  cellAt(place) {
    return this.#cells[place];
  }

  /**
   * Shows the canvas as it was after a step.
   * @param {readonly (Revealed | undefined)[]} revealed By place; tokens of later steps give their masks their width.
   * @param {number} step 0 shows every mask.
   * @param {number} [last] The step that ended the run: what it revealed is marked as new no longer.
   */
  show(revealed, step, last) {
    let ended = false;
    for (const [place, cell] of this.#cells.entries()) {
      const token = revealed[place];
      const visible = token !== undefined && token.step <= step;
      const isEnd = visible && token.token === this.endOfText();
      const kind = !visible ? "mask" : isEnd ? "token end" : "token";
      const classes = ["cell", kind];
      if (visible && token.step === step && step !== last) classes.push("new");
      if (visible && token.text.trim() === "") classes.push("blank");
      if (ended) classes.push("after");
      ended ||= isEnd;
      const key = `${classes.join(" ")} ${token?.token}`;
      if (this.#shown[place] === key) continue;
      this.#shown[place] = key;
      cell.className = classes.join(" ");
      // A space that holds its line puts the block where a word would be.
      if (!token) this.#fill(cell, " ", "\u00a0", "");
      else if (isEnd) this.#fill(cell, " ", "end", "");
      else this.#fill(cell, ...inkOf(token.text));
      cell.classList.toggle("sized", token !== undefined);
      if (visible) cell.dataset.shade = String(shadeOf(token.logprob));
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
