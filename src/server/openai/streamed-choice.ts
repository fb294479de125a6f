/** One choice of a streamed completion. */

import type { SampleResult } from "../../engine/answers/answer.ts";
import type { StepEvent } from "../../engine/answers/step-emitter.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Schemas } from "../openapi.ts";
import { Growth } from "./growth.ts";
import { echoedLength, inside, type Prompted } from "./requests.ts";
import { finishReason, logprobsOf } from "./responses.ts";

/** A chunk without its index. */
type Chunk = Omit<Schemas["CompletionChoice"], "index">;

/** Makes chunks of steps: what is new of the text, with its tokens if log-probabilities are asked for; or the whole text. */
export class StreamedChoice {
  readonly #growth: Growth;
  readonly #echoed: number;
  /** By position, counted from the first masked one. */
  readonly #revealed: { token: number; logprob: number }[] = [];

  /** `diffusing`: every chunk holds the whole text. */
  constructor(
    readonly prompted: Prompted,
    readonly tokenizer: Tokenizer,
    readonly diffusing: boolean,
  ) {
    const { stop = [] } = prompted.request;
    this.#echoed = echoedLength(prompted, tokenizer);
    this.#growth = new Growth(typeof stop === "string" ? [stop] : stop, this.#echoed);
  }

  /** What a step brings, if anything can be told; `first` is the first masked position of the canvas. */
  take(step: StepEvent, first: number): Chunk | undefined {
    for (const reveal of step.revealed) this.#revealed[reveal.position - first] = reveal;
    const chunk = this.#chunk(step.text, (text) => this.#growth.take(text));
    return chunk.text === "" ? undefined : chunk;
  }

  /** What is left of the finished sample. */
  end(sample: SampleResult): Chunk {
    return {
      ...this.#chunk(sample.text, (text) => this.#growth.end(text)),
      finish_reason: finishReason(sample),
    };
  }

  #chunk(whole: string, grow: (text: string) => string): Chunk {
    const from = this.#growth.sent;
    const text = inside(whole, this.prompted);
    const told = this.diffusing ? text : grow(text);
    return { text: told, logprobs: this.#logprobs(from), finish_reason: null };
  }

  /** Of the tokens that begin in what was told since; no token before them is masked. */
  #logprobs(from: number): Chunk["logprobs"] {
    if (!this.prompted.request.logprobs || this.diffusing) return null;
    const known = Array.from(this.#revealed);
    const masked = known.indexOf(undefined as never);
    const reveals = masked < 0 ? known : known.slice(0, masked);
    const columns = {
      tokens: reveals.map(({ token }) => token),
      logprobs: reveals.map(({ logprob }) => logprob),
    };
    return logprobsOf(columns, this.tokenizer, this.#echoed, [from, this.#growth.sent]);
  }
}
