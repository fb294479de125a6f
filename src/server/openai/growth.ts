/** Text that grows from the left, from a canvas whose positions are revealed in any order. */

import { MASK_GLYPH } from "../../model/byte-level.ts";

/** Returns text as soon as nothing before it can change. */
export class Growth {
  /** UTF-16 units returned. */
  #sent = 0;

  /** `given`: UTF-16 units at the start that are known from the beginning, those of an echoed prompt. */
  constructor(
    readonly stop: readonly string[],
    readonly given = 0,
  ) {}

  /** Return what is new in a text whose masked positions show as ░. */
  take(text: string): string {
    const mask = text.indexOf(MASK_GLYPH, this.given);
    const known = mask < 0 ? text : text.slice(0, mask);
    return this.#send(known.slice(0, known.length - this.#unsure(known)));
  }

  /** Return the rest of the final text. */
  end(text: string): string {
    return this.#send(text);
  }

  #send(text: string): string {
    const delta = text.slice(this.#sent);
    this.#sent = Math.max(this.#sent, text.length);
    return delta;
  }

  /** Return the length of the end of `text` that may be the beginning of a stop string. */
  #unsure(text: string): number {
    let longest = 0;
    for (const stop of this.stop)
      for (let size = Math.min(stop.length - 1, text.length); size > longest; size--)
        if (text.endsWith(stop.slice(0, size))) longest = size;
    return longest;
  }
}
