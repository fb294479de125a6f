/** Turn a canvas into text. */

import type { StepRecord } from "../../diffusion/step.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Layout, Piece } from "../layout.ts";

/** Options of a request that change its answer but not the generated tokens. */
export interface OutputOptions {
  layout: Layout;
  /** Number of samples in the answer. */
  n: number;
  /** A generated span ends before the first of these. */
  stop: readonly string[];
  /** A generated span continues after an end of text. */
  pastEnd: boolean;
  /** Start the text with the prompt. */
  echo: boolean;
  logprobs: boolean;
  /** Add every step to the answer. */
  trace: boolean;
}

/** The text of a canvas. */
export interface Rendered {
  text: string;
  /** Texts of the generated spans, each up to its end of text or stop string. */
  spans: string[];
  /** True if a span ended at one of these. */
  stopped: boolean;
}

type Span = Extract<Piece, { kind: "span" }>;

/** Return a span's text up to its end of text or first stop string, and whether there was one. */
function readSpan(tokenizer: Tokenizer, canvas: Int32Array, span: Span, { stop, pastEnd }: OutputOptions) {
  const ids = canvas.subarray(span.start, span.start + span.length);
  const whole = tokenizer.decode(ids, span, pastEnd);
  const end = Math.min(...stop.map((s) => whole.indexOf(s)).filter((at) => at >= 0), whole.length);
  const stopped = end < whole.length || (!pastEnd && ids.includes(tokenizer.special.endOfTextId));
  return { text: whole.slice(0, end), stopped };
}

/** Return true if given text is part of the answer. */
const shows = ({ layout, echo }: OutputOptions) => echo || !layout.continues;

/** Return the text of a canvas [L]. Masked positions show as ░; given text is returned as it was given. */
export function render(tokenizer: Tokenizer, canvas: Int32Array, output: OutputOptions): Rendered {
  const spans: string[] = [];
  let stopped = false;
  let text = "";
  for (const piece of output.layout.pieces) {
    if (piece.kind === "text") {
      if (shows(output)) text += piece.text;
      continue;
    }
    const span = readSpan(tokenizer, canvas, piece, output);
    stopped ||= span.stopped;
    spans.push(span.text);
    text += span.text;
  }
  return { text, spans, stopped };
}

/** The text of one sample while it is revealed. A step renders only the spans that it changes. */
export class LiveText {
  readonly #canvas: Int32Array;
  /** Text of each piece of the layout. */
  readonly #parts: string[];
  #text: string;

  /** @param canvas [L] ids at the start of the sample; copied */
  constructor(
    readonly tokenizer: Tokenizer,
    canvas: readonly number[],
    readonly output: OutputOptions,
  ) {
    this.#canvas = Int32Array.from(canvas);
    this.#parts = output.layout.pieces.map((piece) => this.#read(piece));
    this.#text = this.#parts.join("");
  }

  /** Reveal tokens, mask others again, and return the text, equal to that of `render`. */
  apply({ revealed, remasked = [] }: Pick<StepRecord, "revealed" | "remasked">): string {
    if (revealed.length + remasked.length === 0) return this.#text;
    const { pieces } = this.output.layout;
    const changed = new Set<number>();
    const { maskId: token } = this.tokenizer.special;
    for (const { position, token: id } of [
      ...revealed,
      ...remasked.map((position) => ({ position, token })),
    ]) {
      this.#canvas[position] = id;
      changed.add(indexAt(pieces, position));
    }
    for (const index of changed) this.#parts[index] = this.#read(pieces[index]!);
    this.#text = this.#parts.join("");
    return this.#text;
  }

  /** Return the text with every position from `settled` on masked. */
  before(settled: number): string {
    const canvas = this.#canvas.slice().fill(this.tokenizer.special.maskId, settled);
    return render(this.tokenizer, canvas, this.output).text;
  }

  #read(piece: Piece): string {
    if (piece.kind === "text") return shows(this.output) ? piece.text : "";
    return readSpan(this.tokenizer, this.#canvas, piece, this.output).text;
  }
}

/** Return the index of the span that holds a position. */
function indexAt(pieces: readonly Piece[], position: number): number {
  return pieces.findIndex(
    (piece) => piece.kind === "span" && position >= piece.start && position < piece.start + piece.length,
  );
}
