/**
 * Where a generated text ends, and whether all of it is known while its canvas still has masked positions.
 */

import { maskedPositions } from "../../diffusion/canvas.ts";
import type { Tokenizer } from "../../model/tokenizer.ts";
import type { MaskSpan } from "../layout.ts";

/** Return the runs of masked positions of a canvas [L] before anything is generated. */
function maskedRuns(canvas: readonly number[], maskId: number): MaskSpan[] {
  const runs: MaskSpan[] = [];
  for (const position of maskedPositions(canvas, maskId)) {
    const run = runs.at(-1);
    if (run && run.start + run.length === position) run.length++;
    else runs.push({ start: position, length: 1 });
  }
  return runs;
}

/**
 * Return how many of the ids belong to the text, up to and including the end of text or the token that
 * completes a stop string, or undefined if neither is among them.
 */
export function textEnd(tokenizer: Tokenizer, ids: Int32Array, stop: readonly string[]): number | undefined {
  const endOfText = ids.indexOf(tokenizer.special.endOfTextId);
  const stops = (length: number) => {
    const text = tokenizer.decode(ids.subarray(0, length));
    return stop.some((s) => text.includes(s));
  };
  const length = endOfText < 0 ? ids.length : endOfText;
  if (stop.length === 0 || !stops(length)) return endOfText < 0 ? undefined : endOfText + 1;
  // The shortest prefix with a stop string: every longer one has it too.
  let [without, withStop] = [0, length];
  while (withStop - without > 1) {
    const middle = (without + withStop) >> 1;
    if (stops(middle)) withStop = middle;
    else without = middle;
  }
  return withStop;
}

/**
 * Return the positions of the generated tokens, each span's up to the end of its text. `start` is the canvas
 * [L] before the first step, `end` the finished one.
 */
export function textPositions(
  tokenizer: Tokenizer,
  start: readonly number[],
  end: Int32Array,
  stop: readonly string[],
): number[] {
  return maskedRuns(start, tokenizer.special.maskId).flatMap((run) => {
    const ids = end.subarray(run.start, run.start + run.length);
    const length = textEnd(tokenizer, ids, stop) ?? run.length;
    return Array.from({ length }, (_, i) => run.start + i);
  });
}

/** One span of a canvas while it is revealed. */
interface SpanState extends MaskSpan {
  /** Revealed positions from the start of the span. */
  known: number;
  isComplete: boolean;
}

/** Watches the spans of one canvas [L], given as it is before the first step. */
export class TextEndWatch {
  readonly #spans: SpanState[];

  constructor(
    readonly tokenizer: Tokenizer,
    canvas: readonly number[],
    readonly stop: readonly string[],
  ) {
    this.#spans = maskedRuns(canvas, tokenizer.special.maskId).map((span) => ({
      ...span,
      known: 0,
      isComplete: false,
    }));
  }

  /** Return true if the text of every span is known up to its end, given the canvas [L] after a step. */
  isComplete(canvas: Int32Array): boolean {
    for (const span of this.#spans) if (!span.isComplete) this.#read(span, canvas);
    return this.#spans.every(({ isComplete }) => isComplete);
  }

  #read(span: SpanState, canvas: Int32Array): void {
    const ids = canvas.subarray(span.start, span.start + span.length);
    const masked = ids.indexOf(this.tokenizer.special.maskId);
    const known = masked < 0 ? ids.length : masked;
    if (known === span.known) return;
    span.known = known;
    span.isComplete =
      known === span.length || textEnd(this.tokenizer, ids.subarray(0, known), this.stop) !== undefined;
  }
}
