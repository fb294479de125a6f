/** One choice of a streamed completion. */

import type { Reveal } from "../../diffusion/canvas.ts";
import type { SampleResult } from "../../engine/answers/answer.ts";
import type { StepEvent } from "../../engine/answers/step-emitter.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import { Growth } from "./growth.ts";
import { type Echoed, echoedOf, inside, type Prompted } from "./requests.ts";
import {
  finishReason,
  lengthOf,
  NOTHING_ECHOED,
  type Part,
  type TokenColumn,
  tokensIn,
} from "./responses.ts";

/** A chunk without its index. */
type Chunk = Omit<Part, "index">;

/**
 * The chunks of one choice: new text, with its tokens if log-probabilities are asked for; or the whole text
 * each time.
 */
export class StreamedChoice {
  readonly #growth: Growth;
  readonly #echoed: Echoed;
  /** Characters sent. */
  #length = 0;
  /** By position, counted from the first masked one. */
  readonly #revealed: TokenColumn[number][] = [];
  /** Log-probabilities of the prompt; a scored prompt is sent once they are there. */
  scores: readonly Reveal[] | undefined;

  /** `diffusing`: every chunk holds the whole text. */
  constructor(
    readonly prompted: Prompted,
    readonly tokenizer: Tokenizer,
    readonly diffusing: boolean,
  ) {
    const { stop = [] } = prompted.request;
    this.#echoed = echoedOf(prompted, tokenizer);
    this.#growth = new Growth(typeof stop === "string" ? [stop] : stop, this.#echoed.text.length);
  }

  /**
   * Return the chunk of a step; undefined if it adds nothing.
   *
   * @param first the first masked position of the canvas
   * @param settled returns the text without what may still change
   */
  take(step: StepEvent, first: number, settled: () => string): Chunk | undefined {
    for (const { position, token, logprob, top_logprobs: top } of step.revealed)
      this.#revealed[position - first] = { token, logprob, ...(top && { top }) };
    for (const position of step.remasked ?? []) delete this.#revealed[position - first];
    if (this.prompted.scored && !this.scores) return undefined;
    const chunk = this.#chunk(this.diffusing ? step.text : settled(), (text) => this.#growth.take(text));
    return chunk.text === "" ? undefined : chunk;
  }

  /** Return the last chunk, with the rest of the finished sample. */
  end(sample: SampleResult): Chunk {
    return {
      ...this.#chunk(sample.text, (text) => this.#growth.end(text)),
      finish_reason: finishReason(sample),
    };
  }

  #chunk(whole: string, grow: (text: string) => string): Chunk {
    const text = inside(whole, this.prompted);
    if (this.diffusing) return { text, logprobs: null, finish_reason: null };
    const from = this.#length;
    const added = grow(text);
    this.#length += lengthOf(added);
    return { text: added, logprobs: this.#logprobs(from), finish_reason: null };
  }

  /** Return those of the tokens that begin in the text added last; no token before them is masked. */
  #logprobs(from: number): Chunk["logprobs"] {
    if (!this.prompted.request.logprobs) return null;
    const known = Array.from(this.#revealed);
    const masked = known.indexOf(undefined as never);
    const reveals = masked < 0 ? known : known.slice(0, masked);
    const column = [...(this.scores ?? []), ...reveals];
    const echoed = this.scores ? NOTHING_ECHOED : this.#echoed;
    return tokensIn(column, this.tokenizer, echoed, [from, this.#length]);
  }
}
