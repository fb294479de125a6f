/** Text that grows from the left, out of text that comes into focus everywhere at once. */

import { MASK_GLYPH } from "../../model/byte-level.ts";

/** Hands out text as soon as nothing before it can change. */
export class Growth {
  #sent = 0;

  /** Characters handed out. */
  get sent(): number {
    return this.#sent;
  }

  /** `given`: characters at the start that are known from the beginning, such as an echoed prompt. */
  constructor(
    readonly stop: readonly string[],
    readonly given = 0,
  ) {}

  /** What is new of a text whose first masked position shows as ░. */
  take(text: string): string {
    const mask = text.indexOf(MASK_GLYPH, this.given);
    const known = mask < 0 ? text : text.slice(0, mask);
    return this.#send(known.slice(0, known.length - this.#unsure(known)));
  }

  /** What is left of the final text. */
  end(text: string): string {
    return this.#send(text);
  }

  #send(text: string): string {
    const delta = text.slice(this.#sent);
    this.#sent = Math.max(this.#sent, text.length);
    return delta;
  }

  /** Length of the end of `text` that may turn out to begin a stop string. */
  #unsure(text: string): number {
    let longest = 0;
    for (const stop of this.stop)
      for (let size = Math.min(stop.length - 1, text.length); size > longest; size--)
        if (text.endsWith(stop.slice(0, size))) longest = size;
    return longest;
  }
}
