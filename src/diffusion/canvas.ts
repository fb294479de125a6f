/** A canvas: the prompt, fixed, then positions that start masked and are revealed step by step. */

/** One revealed position. */
export interface Reveal {
  /** From the start of the canvas, prompt included. */
  position: number;
  token: number;
  /** Natural log of the token's probability under p(x0 | z_t), at temperature 1. */
  logprob: number;
}

/** Token ids of one sample, with its masked positions in ascending order. */
export class Canvas {
  /** [L] ids; masked positions hold `maskId`. */
  readonly tokens: Int32Array;
  #masked: number[];

  /** Prompt ids followed by `length` masks. Throws RangeError if there is nothing to generate. */
  constructor(
    prompt: readonly number[],
    length: number,
    readonly maskId: number,
  ) {
    if (!(length >= 1)) throw new RangeError(`a canvas needs at least one masked position, not ${length}`);
    this.tokens = new Int32Array(prompt.length + length).fill(maskId);
    this.tokens.set(prompt);
    this.#masked = Array.from({ length }, (_, i) => prompt.length + i);
  }

  /** Positions that are still masked, ascending. */
  get masked(): readonly number[] {
    return this.#masked;
  }

  /** Writes the revealed tokens. Throws RangeError if a position is not masked or a token is the mask. */
  reveal(reveals: readonly Reveal[]): void {
    for (const { position, token } of reveals) {
      if (this.tokens[position] !== this.maskId) throw new RangeError(`position ${position} is not masked`);
      if (token < 0 || token >= this.maskId) throw new RangeError(`token ${token} cannot be revealed`);
      this.tokens[position] = token;
    }
    this.#masked = this.#masked.filter((position) => this.tokens[position] === this.maskId);
  }
}
