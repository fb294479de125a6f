/** The canvas of a sample: given token ids, and masked positions that are revealed step by step. */

/** One revealed position. */
export interface Reveal {
  /** Index on the canvas, prompt included. */
  position: number;
  token: number;
  /** Natural log-probability of the token under p(x0 | z_t), at temperature 1. */
  logprob: number;
  /** The most likely tokens at the position when it was drawn, best first; present if asked for. */
  top?: TokenLogprob[];
}

/** A token with its natural log-probability at temperature 1. */
export interface TokenLogprob {
  token: number;
  logprob: number;
}

/** Return the masked positions of a canvas [L], ascending. */
export function maskedPositions(tokens: ArrayLike<number>, maskId: number): number[] {
  const positions: number[] = [];
  for (let position = 0; position < tokens.length; position++)
    if (tokens[position] === maskId) positions.push(position);
  return positions;
}

/** Return the ids of a prompt followed by `length` masks. */
export function promptCanvas(prompt: readonly number[], length: number, maskId: number): number[] {
  return [...prompt, ...new Array<number>(length).fill(maskId)];
}

/** Token ids of one sample, with its masked positions in ascending order. */
export class Canvas {
  /** [L] ids; masked positions hold `maskId`. */
  readonly tokens: Int32Array;
  #masked: number[];

  /**
   * Throws RangeError if no position is masked, unless the canvas `mayBeFull`.
   *
   * @param tokens [L] ids, the mask where text is generated
   */
  constructor(
    tokens: readonly number[],
    readonly maskId: number,
    mayBeFull = false,
  ) {
    this.tokens = Int32Array.from(tokens);
    this.#masked = maskedPositions(tokens, maskId);
    if (this.#masked.length === 0 && !mayBeFull)
      throw new RangeError("a canvas needs at least one masked position");
  }

  /** Masked positions, ascending. */
  get masked(): readonly number[] {
    return this.#masked;
  }

  /** Write the revealed tokens. Throws RangeError if a position is not masked or a token is the mask. */
  reveal(reveals: readonly Reveal[]): void {
    for (const { position, token } of reveals) {
      if (this.tokens[position] !== this.maskId) throw new RangeError(`position ${position} is not masked`);
      if (token < 0 || token >= this.maskId) throw new RangeError(`token ${token} cannot be revealed`);
      this.tokens[position] = token;
    }
    this.#masked = this.#masked.filter((position) => this.tokens[position] === this.maskId);
  }

  /** Mask revealed positions again. Throws RangeError if one is masked already. */
  remask(positions: readonly number[]): void {
    for (const position of positions) {
      if (this.tokens[position] === this.maskId) throw new RangeError(`position ${position} is masked`);
      this.tokens[position] = this.maskId;
    }
    if (positions.length > 0) this.#masked = [...this.#masked, ...positions].sort((a, b) => a - b);
  }
}
