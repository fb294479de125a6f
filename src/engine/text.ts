/** A canvas as text, in the shape a client asked for. */

import type { Tokenizer } from "../model/tokenizer.ts";
import type { Layout } from "./layout.ts";

/** What of an answer a client wants to see, and how; nothing of it changes what is generated. */
export interface View {
  layout: Layout;
  /** Samples in the answer, the first ones. */
  n: number;
  /** A span ends before the first of these. */
  stop: readonly string[];
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

/** Reads a canvas [L]; masked positions show as ░, and what was given shows as it was given. */
export function render(tokenizer: Tokenizer, canvas: Int32Array, { layout, stop, echo }: View): Rendered {
  const spans: string[] = [];
  let stopped = false;
  let text = "";
  for (const piece of layout.pieces) {
    if (piece.kind === "text") {
      if (echo || !layout.continues) text += piece.text;
      continue;
    }
    const ids = canvas.subarray(piece.start, piece.start + piece.length);
    const whole = tokenizer.decode(ids, piece);
    const end = Math.min(...stop.map((s) => whole.indexOf(s)).filter((at) => at >= 0), whole.length);
    stopped ||= end < whole.length || ids.includes(tokenizer.special.endOfTextId);
    const span = whole.slice(0, end);
    spans.push(span);
    text += span;
  }
  return { text, spans, stopped };
}
