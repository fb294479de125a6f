/** The tokenizer of a model: encodes with Hugging Face's `tokenizers`, decodes by the bytes of each token. */

import { readFile } from "node:fs/promises";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { invalid, StartupError } from "../errors.ts";
import {
  characterStarts,
  decodeBytes,
  decodeRun,
  MASK_GLYPH,
  tokenBytes,
  wholeCharacters,
} from "./byte-level.ts";
import { parseTokenizer, type TokenizerDefinition } from "./tokenizer-file.ts";

/** Ids with a special meaning. */
export interface SpecialIds {
  maskId: number;
  endOfTextId: number;
}

/** Bytes before and after a run of ids that complete its first and last character. */
export interface Borders {
  before?: Uint8Array;
  after?: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

/** The bytes that occur in UTF-8. */
const UTF8_BYTES = Array.from({ length: 0xf5 }, (_, byte) => byte).filter((b) => b !== 0xc0 && b !== 0xc1);

/** A token of WordPiece that stands without a space before it. */
const CLOSING = /^[.,!?;:%)\]}'’…]+$/;

/** Return the bytes of each of `size` ids of a WordPiece: a word has a space before it, "##ing" none. */
function wordBytes(vocab: ReadonlyMap<string, number>, size: number): Uint8Array[] {
  const table: Uint8Array[] = Array.from({ length: size }, () => NO_BYTES);
  for (const [token, id] of vocab) {
    const text = token.startsWith("##") ? token.slice(2) : CLOSING.test(token) ? token : ` ${token}`;
    table[id] = Buffer.from(text);
  }
  return table;
}

/**
 * Byte-level BPE, or WordPiece, whose texts come back without what it does not keep: spaces, and in most
 * models capitals and accents. Text never encodes to special tokens, so a prompt cannot contain a mask.
 */
export class Tokenizer {
  readonly #encoder: HuggingFaceTokenizer;
  readonly #bytes: Uint8Array[];
  readonly #longest: number;

  /** Bytes that no token has: the texts of a model of proteins have but 20 letters. */
  readonly #missing: ReadonlySet<number>;

  /** Whether decoding restores any text. */
  readonly isLossless: boolean;

  constructor(
    definition: TokenizerDefinition,
    readonly vocabSize: number,
    readonly special: SpecialIds,
  ) {
    // Added tokens are only runs of spaces, so "[MASK]" in a prompt is six ordinary characters.
    const { texts, silent, ...file } = definition;
    this.#encoder = new HuggingFaceTokenizer(file, {});
    this.isLossless = definition.model.type === "BPE";
    const vocab = new Map(Object.entries(definition.model.vocab));
    const unknown = vocab.get(String(definition.model.unk_token));
    this.#bytes = this.isLossless ? tokenBytes(vocab, vocabSize) : wordBytes(vocab, vocabSize);
    const single = new Set(this.#bytes.filter(({ length }) => length === 1).map(([byte]) => byte));
    // A WordPiece has a token for what it does not know.
    this.#missing = this.isLossless ? new Set(UTF8_BYTES.filter((byte) => !single.has(byte))) : new Set();
    for (const [id, text] of texts) this.#bytes[id] = Buffer.from(text);
    for (const id of silent) this.#bytes[id] = NO_BYTES;
    if (unknown !== undefined) this.#bytes[unknown] = Buffer.from(" \ufffd");
    this.#bytes[special.maskId] = NO_BYTES;
    this.#bytes[special.endOfTextId] = NO_BYTES;
    this.#longest = this.#bytes.reduce((longest, bytes) => Math.max(longest, bytes.length), 1);
  }

  /**
   * Return the ids of a text, or undefined if its size alone shows that it has more than `limit` tokens, so
   * that a huge text is not tokenised. Throws InvalidRequestError for a character that no token has.
   *
   * @param path field of the request that holds the text
   */
  encode(text: string, limit: number, path = ""): number[] | undefined {
    if (text === "") return [];
    if (Buffer.byteLength(text) > limit * this.#longest) return undefined;
    if (this.#missing.size > 0) this.#checkBytes(text, path);
    return this.#encoder.encode(text, { add_special_tokens: false }).ids;
  }

  #checkBytes(text: string, path: string): void {
    const isMissing = (byte: number) => this.#missing.has(byte);
    if (!Buffer.from(text).some(isMissing)) return;
    const characters = [...text];
    const at = characters.findIndex((character) => Buffer.from(character).some(isMissing));
    const message = `has ${JSON.stringify(characters[at])} as character ${at + 1}, for which the model has no token`;
    throw invalid(path, message);
  }

  /**
   * Return the character of its text in which each of these ids begins, counted in code points; one that
   * begins past the text has the number of its characters. `before`: bytes in front of the ids whose
   * character the first of them ends.
   */
  characterOf(ids: readonly number[], before: Uint8Array = NO_BYTES): number[] {
    const bytes = Buffer.concat([before, ...ids.map((id) => this.#bytes[id]!)]);
    const starts = characterStarts(bytes);
    let at = before.length;
    let character = 0;
    return ids.map((id) => {
      while (character < starts.length && starts[character]! < at) character++;
      const begins = starts[character] === at || at === bytes.length;
      at += this.#bytes[id]!.length;
      return begins ? character : character - 1;
    });
  }

  /** Return the bytes of a token; none for a special token. */
  bytesOf(id: number): Uint8Array {
    return this.#bytes[id]!;
  }

  /** Return the text of one token: U+FFFD for a partial character, nothing for a special token. */
  tokenText(id: number): string {
    return decodeRun(this.#bytes[id]!, false, false);
  }

  /** Return a text that names a token: its own, or its bytes if it is part of a character. */
  tokenName(id: number): string {
    const text = this.tokenText(id);
    if (!text.includes("\ufffd")) return text;
    const hex = Array.from(this.#bytes[id]!, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`);
    return `bytes:${hex.join("")}`;
  }

  /**
   * Decode ids up to the first end of text. A masked position shows as ░; partial characters next to one are
   * left out.
   *
   * @param borders bytes that complete the first and last character
   * @param pastEnd continue after an end of text, which decodes to nothing
   */
  decode(
    ids: ArrayLike<number>,
    { before = NO_BYTES, after = NO_BYTES }: Borders = {},
    pastEnd = false,
  ): string {
    let text = "";
    let run: Uint8Array[] = [before];
    let openLeft = false;
    const flush = (openRight: boolean) => {
      if (run.length > 0) text += decodeRun(Buffer.concat(run), openLeft, openRight);
      run = [];
    };
    const last = pastEnd ? ids.length : this.#lengthOf(ids);
    for (let i = 0; i < last; i++) {
      const id = ids[i]!;
      if (id === this.special.maskId) {
        flush(true);
        text += MASK_GLYPH;
        openLeft = true;
      } else run.push(this.#bytes[id]!);
    }
    if (last === ids.length) run.push(after);
    flush(false);
    return text;
  }

  /**
   * Decode the whole characters of ids up to the first end of text, and return the bytes before and after
   * them, which masked positions next to an open end may complete.
   */
  decodeOpen(
    ids: ArrayLike<number>,
    openLeft: boolean,
    openRight: boolean,
  ): Required<Borders> & { text: string } {
    const last = this.#lengthOf(ids);
    const bytes = Buffer.concat(Array.from({ length: last }, (_, i) => this.#bytes[ids[i]!]!));
    const { start, end } = wholeCharacters(bytes, openLeft, openRight && last === ids.length);
    return {
      before: bytes.subarray(0, start),
      text: decodeBytes(bytes.subarray(start, end)),
      after: bytes.subarray(end),
    };
  }

  /** Return the number of ids before the first end of text. */
  #lengthOf(ids: ArrayLike<number>): number {
    const end = Array.prototype.indexOf.call(ids, this.special.endOfTextId);
    return end < 0 ? ids.length : end;
  }
}

/** Read `tokenizer.json`. Throws StartupError if `parseTokenizer` refuses it. */
export async function readTokenizer(
  path: string,
  vocabSize: number,
  special: SpecialIds,
): Promise<Tokenizer> {
  try {
    const definition = parseTokenizer(await readFile(path, "utf8"), vocabSize);
    return new Tokenizer(definition, vocabSize, special);
  } catch (error) {
    throw new StartupError(`cannot use ${path}: ${(error as Error).message}`);
  }
}
