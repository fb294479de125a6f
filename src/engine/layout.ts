/** Build the canvas of a request from a prompt, a template with spans to fill, or token ids. */

import { maskedPositions, promptCanvas } from "../diffusion/canvas.ts";
import { type InvalidRequestError, invalid } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { Borders } from "../model/tokenizer.ts";
import { parseTemplate } from "./template.ts";

/** The fields of a request that define its canvas. Exactly one of the first four must be given. */
export interface CanvasRequest {
  /** Text to continue. */
  prompt?: string | undefined;
  /** Token ids to continue; the mask is not allowed. */
  prompt_tokens?: number[] | undefined;
  /** Text with spans to fill, written `{{mask:N}}`, and choices, written `{{choice:a|b}}` or `{{choice}}`. */
  template?: string | undefined;
  /** Options of the `{{choice}}` spans, in order. */
  choices?: string[][] | undefined;
  /** The decision of each choice of the template, in order; required for a template with choices. */
  decided?: { choices: readonly { chosen: number }[] } | undefined;
  /** Ids of the whole canvas, the mask where text is generated. */
  tokens?: number[] | undefined;
  /** New tokens after a prompt. Default: 128, or the rest of the context if that is less. */
  length?: number | undefined;
}

/** A run of masks: its first position on the canvas, and its length. */
export interface MaskSpan {
  start: number;
  length: number;
}

/** A part of the canvas. */
export type Piece =
  /** Given, with its text. */
  | { kind: "text"; text: string }
  /** Generated. A character that crosses a border between given ids and the span belongs to the span. */
  | ({ kind: "span" } & MaskSpan & Borders);

/** A canvas and how to turn it into text. */
export interface Layout {
  /** [L] ids, the mask in every span. */
  canvas: number[];
  pieces: Piece[];
  /** True if a prompt is continued: the answer is then the one span at the end. */
  continues: boolean;
}

/** Return the generated spans of a canvas, in order. */
export function maskSpans({ pieces }: Layout): MaskSpan[] {
  return pieces.flatMap((piece) =>
    piece.kind === "span" ? [{ start: piece.start, length: piece.length }] : [],
  );
}

const DEFAULT_LENGTH = 128;

/**
 * Build the canvas of a request. Throws InvalidRequestError naming the field.
 *
 * @example
 * layoutOf(model, { template: "Once {{mask:8}} end." }).pieces; // text, span, text
 */
export function layoutOf(model: Model, request: CanvasRequest): Layout {
  const fields = ["prompt", "prompt_tokens", "template", "tokens"] as const;
  const given = fields.filter((field) => request[field] !== undefined);
  const [field, another] = given;
  if (!field)
    throw invalid(
      "/prompt",
      "is missing: give the text to continue, or /prompt_tokens, /template or /tokens",
    );
  if (another) throw invalid(`/${another}`, `cannot be combined with /${field}: send only one of them`);
  if (field === "prompt" || field === "prompt_tokens") return continued(model, field, request);
  if (request.length !== undefined)
    throw invalid("/length", `has no effect with /${field}, which sets the length itself: leave it out`);
  return field === "template" ? filled(model, request) : whole(model, request.tokens!);
}

function tooLong({ manifest }: Model, path: string, size: string): InvalidRequestError {
  const { name, context_length } = manifest;
  return invalid(
    path,
    `has ${size} tokens, and ${name} has a context of ${context_length}: shorten it`,
    true,
  );
}

/**
 * Tokenise a text. Throws InvalidRequestError if it does not fit the context, if possible without tokenising
 * it.
 */
function encoded(model: Model, path: string, text: string): number[] {
  const { context_length: context } = model.manifest;
  const ids = model.tokenizer.encode(text, context, path);
  if (ids && ids.length <= context) return ids;
  throw tooLong(model, path, ids ? `${ids.length}` : `more than ${context}`);
}

/** Lay out a prompt followed by masks. */
function continued(model: Model, field: "prompt" | "prompt_tokens", request: CanvasRequest): Layout {
  const { context_length: context, mask_token_id: mask, name } = model.manifest;
  const path = `/${field}`;
  const wrong = request.prompt_tokens?.findIndex((id) => id >= mask) ?? -1;
  if (wrong >= 0)
    throw invalid(
      `${path}/${wrong}`,
      `must be below ${mask}, the id of the mask of ${name}, and is ${request.prompt_tokens![wrong]}: ` +
        "use the ids of " +
        "its tokenizer, or send text",
    );
  const prompt = request.prompt_tokens ?? encoded(model, path, request.prompt!);
  const room = context - prompt.length;
  if (room < 1) throw tooLong(model, path, `${prompt.length}`);
  const length = request.length ?? Math.min(DEFAULT_LENGTH, room);
  if (length > room) {
    const message =
      `asks for ${length} new tokens, and with a prompt of ${prompt.length} they do not fit the context of ` +
      `${context}: at most ${room}`;
    throw invalid("/length", message);
  }
  const { text, after: before } = model.tokenizer.decodeOpen(prompt, false, request.prompt === undefined);
  return {
    canvas: promptCanvas(prompt, length, mask),
    pieces: [
      { kind: "text", text: request.prompt ?? text },
      { kind: "span", start: prompt.length, length, before },
    ],
    continues: true,
  };
}

/** Lay out a template with its decided choices. Its texts are tokenised separately and do not change. */
function filled(model: Model, { template, choices, decided }: CanvasRequest): Layout {
  const { context_length: context, mask_token_id: mask } = model.manifest;
  const pieces: Piece[] = [];
  const canvas: number[] = [];
  const text = (part: string) => {
    pieces.push({ kind: "text", text: part });
    for (const id of encoded(model, "/template", part)) canvas.push(id);
    if (canvas.length > context) throw tooLong(model, "/template", `more than ${context}`);
  };
  let made = 0;
  for (const part of parseTemplate(template!, choices)) {
    if ("text" in part) text(part.text);
    else if ("options" in part) text(part.options[decided!.choices[made++]!.chosen]!.inserted);
    else {
      const { masks: length } = part;
      if (canvas.length + length > context) throw tooLong(model, "/template", `more than ${context}`);
      pieces.push({ kind: "span", start: canvas.length, length });
      for (let i = 0; i < length; i++) canvas.push(mask);
    }
  }
  if (made === 0 && !pieces.some(({ kind }) => kind === "span"))
    throw invalid("/template", "has no span to fill: write one as {{mask:N}}, or send a prompt instead");
  return { canvas, pieces, continues: false };
}

/** Lay out a canvas that is given as ids. */
function whole(model: Model, tokens: number[]): Layout {
  const { context_length: context, mask_token_id: mask, name } = model.manifest;
  if (tokens.length > context) throw tooLong(model, "/tokens", `${tokens.length}`);
  const wrong = tokens.findIndex((id) => id > mask);
  if (wrong >= 0)
    throw invalid(`/tokens/${wrong}`, `must be an id of ${name}: at most ${mask}, which is its mask`);
  if (maskedPositions(tokens, mask).length === 0)
    throw invalid("/tokens", `has no masked position: put ${mask} where text should be generated`);
  const pieces: Piece[] = [];
  let before: Uint8Array | undefined;
  for (let start = 0; start < tokens.length; ) {
    const masked = tokens[start] === mask;
    let end = start;
    while (end < tokens.length && (tokens[end] === mask) === masked) end++;
    const given = masked
      ? undefined
      : model.tokenizer.decodeOpen(tokens.slice(start, end), start > 0, end < tokens.length);
    const span = pieces.at(-1);
    // Bytes inside a character whose other bytes are generated have no text of their own: they join the span.
    const isInside = given?.text === "" && given.before.length > 0;
    if (span?.kind === "span" && (masked || isInside)) span.length = end - span.start;
    else if (!given) pieces.push({ kind: "span", start, length: end - start, ...(before && { before }) });
    else {
      if (span?.kind === "span") span.after = given.before;
      pieces.push({ kind: "text", text: given.text });
      before = given.after;
    }
    start = end;
  }
  return { canvas: [...tokens], pieces, continues: false };
}
