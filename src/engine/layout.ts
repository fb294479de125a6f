/** A canvas from what a client gives: a prompt to continue, a template with spans to fill, or ids. */

import { maskedPositions, promptCanvas } from "../diffusion/canvas.ts";
import { InvalidRequestError } from "../errors.ts";
import type { Model } from "../model/model.ts";
import type { Borders } from "../model/tokenizer.ts";

/** The ways to say what the canvas is; exactly one of the first four is given. */
export interface CanvasRequest {
  /** The text to continue. */
  prompt?: string | undefined;
  /** The same as ids; the mask is not among them. */
  prompt_tokens?: number[] | undefined;
  /** Text with spans to fill, each written `{{mask:N}}`. */
  template?: string | undefined;
  /** The whole canvas as ids, the mask where text is to be generated. */
  tokens?: number[] | undefined;
  /** New tokens after a prompt; absent: DEFAULT_LENGTH or what the prompt leaves of the context. */
  length?: number | undefined;
}

/** A run of masks on a canvas: its first position, counted from the start of the canvas, and how many there are. */
export interface MaskSpan {
  start: number;
  length: number;
}

/** A part of the canvas, in order. */
export type Piece =
  /** Given; what it shows. */
  | { kind: "text"; text: string }
  /** To be generated; where ids are given, characters may lie across its borders, and they belong to it. */
  | ({ kind: "span" } & MaskSpan & Borders);

/** A canvas, and how to read it as text. */
export interface Layout {
  /** [L] ids, the mask in every span. */
  canvas: number[];
  pieces: Piece[];
  /** True if a prompt is continued, so that the answer is the one span at the end. */
  continues: boolean;
}

/** Where a canvas is masked at first, in order. */
export function maskSpans({ pieces }: Layout): MaskSpan[] {
  return pieces.flatMap((piece) =>
    piece.kind === "span" ? [{ start: piece.start, length: piece.length }] : [],
  );
}

const DEFAULT_LENGTH = 128;

/** Longer spans are not counted out: no context holds them. */
const SPAN = /\{\{mask:([1-9]\d{0,6})\}\}/g;

const refuse = (path: string, message: string, tooLarge = false) =>
  new InvalidRequestError([{ path, message }], tooLarge);

/** The canvas of a request. Throws InvalidRequestError with the field at fault. */
export function layoutOf(model: Model, request: CanvasRequest): Layout {
  const fields = ["prompt", "prompt_tokens", "template", "tokens"] as const;
  const given = fields.filter((field) => request[field] !== undefined);
  const [field, another] = given;
  if (!field)
    throw refuse("/prompt", "is missing: give the text to continue, or /prompt_tokens, /template or /tokens");
  if (another) throw refuse(`/${another}`, `cannot stand beside /${field}: leave one of them out`);
  if (field === "prompt" || field === "prompt_tokens") return continued(model, field, request);
  if (request.length !== undefined)
    throw refuse(
      "/length",
      `has no effect beside /${field}, which says what is to be generated: leave it out`,
    );
  return field === "template" ? filled(model, request.template!) : whole(model, request.tokens!);
}

function tooLong({ manifest }: Model, path: string, size: string): InvalidRequestError {
  const { name, context_length } = manifest;
  return refuse(path, `has ${size} tokens, and ${name} has a context of ${context_length}: shorten it`, true);
}

/** Ids of a text; throws if they are certainly or really more than the context. */
function encoded(model: Model, path: string, text: string): number[] {
  const { context_length: context } = model.manifest;
  const ids = model.tokenizer.encode(text, context);
  if (ids && ids.length <= context) return ids;
  throw tooLong(model, path, ids ? `${ids.length}` : `more than ${context}`);
}

/** A prompt, and masks after it. */
function continued(model: Model, field: "prompt" | "prompt_tokens", request: CanvasRequest): Layout {
  const { context_length: context, mask_token_id: mask, name } = model.manifest;
  const path = `/${field}`;
  const wrong = request.prompt_tokens?.findIndex((id) => id >= mask) ?? -1;
  if (wrong >= 0) throw refuse(`${path}/${wrong}`, `must be an id below ${mask}, the mask of ${name}`);
  const prompt = request.prompt_tokens ?? encoded(model, path, request.prompt!);
  const room = context - prompt.length;
  if (room < 1) throw tooLong(model, path, `${prompt.length}`);
  const length = request.length ?? Math.min(DEFAULT_LENGTH, room);
  if (length > room) {
    const message = `${length} new tokens and a prompt of ${prompt.length} do not fit the context of ${context}: at most ${room}`;
    throw refuse("/length", message);
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

/** A template: its texts are tokenised apart from each other, and stay as they are. */
function filled(model: Model, template: string): Layout {
  const { context_length: context, mask_token_id: mask } = model.manifest;
  const pieces: Piece[] = [];
  const canvas: number[] = [];
  const text = (part: string) => {
    const stray = part.indexOf("{{mask");
    if (stray >= 0)
      throw refuse(
        "/template",
        `has ${JSON.stringify(part.slice(stray, stray + 16))}, which is no span: write {{mask:N}} with N of at least 1`,
      );
    if (part === "") return;
    pieces.push({ kind: "text", text: part });
    for (const id of encoded(model, "/template", part)) canvas.push(id);
    if (canvas.length > context) throw tooLong(model, "/template", `more than ${context}`);
  };
  let at = 0;
  for (const match of template.matchAll(SPAN)) {
    text(template.slice(at, match.index));
    const length = Number(match[1]);
    if (canvas.length + length > context) throw tooLong(model, "/template", `more than ${context}`);
    pieces.push({ kind: "span", start: canvas.length, length });
    for (let i = 0; i < length; i++) canvas.push(mask);
    at = match.index + match[0].length;
  }
  text(template.slice(at));
  if (!pieces.some(({ kind }) => kind === "span"))
    throw refuse("/template", "has no span to fill: write one as {{mask:N}}, or send a prompt instead");
  return { canvas, pieces, continues: false };
}

/** A canvas that is given whole. */
function whole(model: Model, tokens: number[]): Layout {
  const { context_length: context, mask_token_id: mask, name } = model.manifest;
  if (tokens.length > context) throw tooLong(model, "/tokens", `${tokens.length}`);
  const wrong = tokens.findIndex((id) => id > mask);
  if (wrong >= 0) throw refuse(`/tokens/${wrong}`, `must be an id of ${name}: at most ${mask}, its mask`);
  if (maskedPositions(tokens, mask).length === 0)
    throw refuse("/tokens", `has no masked position: put ${mask} where text is to be generated`);
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
    // What lies within a character whose ends are to be generated cannot be read without them.
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
