/** A canvas as text, in the shape a client asked for. */

import type { Reveal } from "../../diffusion/canvas.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { Layout, Piece } from "../layout.ts";

/** What of an answer a client wants to see, and how; nothing of it changes what is generated. */
export interface OutputOptions {
  layout: Layout;
  /** Samples in the answer, the first ones. */
  n: number;
  /** A span ends before the first of these. */
  stop: readonly string[];
  /** A span goes on after an end of text. */
  pastEnd: boolean;
  /** Begin with the prompt. */
  echo: boolean;
  logprobs: boolean;
  /** Every step in the answer. */
  trace: boolean;
}

/** A canvas as text. */
export interface Rendered {
  text: string;
  /** The generated spans, each up to its end of text or stop string. */
  spans: string[];
  /** True if a span ended so. */
  stopped: boolean;
}

type Span = Extract<Piece, { kind: "span" }>;

/** Return a span's text up to its end of text or first stop string, and whether it ends so. */
function readSpan(tokenizer: Tokenizer, canvas: Int32Array, span: Span, { stop, pastEnd }: OutputOptions) {
  const ids = canvas.subarray(span.start, span.start + span.length);
  const whole = tokenizer.decode(ids, span, pastEnd);
  const end = Math.min(...stop.map((s) => whole.indexOf(s)).filter((at) => at >= 0), whole.length);
  const stopped = end < whole.length || (!pastEnd && ids.includes(tokenizer.special.endOfTextId));
  return { text: whole.slice(0, end), stopped };
}

/** Whether a piece of given text shows in the answer. */
const shows = ({ layout, echo }: OutputOptions) => echo || !layout.continues;

/** Reads a canvas [L]; masked positions show as ░, and what was given shows as it was given. */
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

/** The text of one sample while it is revealed: a step costs what it changes. */
export class LiveText {
  readonly #canvas: Int32Array;
  /** Text of each piece of the layout. */
  readonly #parts: string[];
  #text: string;

  /** `canvas` [L] is as the sample starts, and is copied. */
  constructor(
    readonly tokenizer: Tokenizer,
    canvas: readonly number[],
    readonly output: OutputOptions,
  ) {
    this.#canvas = Int32Array.from(canvas);
    this.#parts = output.layout.pieces.map((piece) => this.#read(piece));
    this.#text = this.#parts.join("");
  }

  /** Reveal tokens and return the text, which is that of `render`. */
  reveal(revealed: readonly Reveal[]): string {
    if (revealed.length === 0) return this.#text;
    const { pieces } = this.output.layout;
    const changed = new Set<number>();
    for (const { position, token } of revealed) {
      this.#canvas[position] = token;
      changed.add(indexAt(pieces, position));
    }
    for (const index of changed) this.#parts[index] = this.#read(pieces[index]!);
    this.#text = this.#parts.join("");
    return this.#text;
  }

  #read(piece: Piece): string {
    if (piece.kind === "text") return shows(this.output) ? piece.text : "";
    return readSpan(this.tokenizer, this.#canvas, piece, this.output).text;
  }
}

/** The index of the span that holds a position. */
function indexAt(pieces: readonly Piece[], position: number): number {
  return pieces.findIndex(
    (piece) => piece.kind === "span" && position >= piece.start && position < piece.start + piece.length,
  );
}
