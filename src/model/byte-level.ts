/**
 * Decode byte-level BPE tokens.
 *
 * A token is a run of bytes, and a character may span several tokens, some of them masked. So tokens are
 * turned into bytes first, and only whole characters into text.
 */

/** Shown in text for a masked position. */
export const MASK_GLYPH = "░";

const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

/** GPT-2's printable character for each byte. A printable byte is its own. */
const BYTE_CHARACTERS: readonly string[] = (() => {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
})();

/** Return bytes in the notation of a vocabulary. */
export function byteString(bytes: Uint8Array): string {
  return Array.from(bytes, (b) => BYTE_CHARACTERS[b]!).join("");
}

/**
 * Return the bytes of each of `size` ids; ids without a token get none.
 *
 * @param vocab token string to id
 */
export function tokenBytes(vocab: ReadonlyMap<string, number>, size: number): Uint8Array[] {
  const bytes = new Map(BYTE_CHARACTERS.map((character, b) => [character, b]));
  const table: Uint8Array[] = Array.from({ length: size }, () => new Uint8Array(0));
  for (const [token, id] of vocab) {
    table[id] = Uint8Array.from(token, (character) => bytes.get(character) ?? 0x3f);
  }
  return table;
}

/** Return the length of the UTF-8 sequence that starts with `lead`; 0 if none does. */
function sequenceLength(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

const isContinuation = (byte: number) => (byte & 0xc0) === 0x80;

/**
 * Return the range of whole characters in a run of bytes. At an open end, next to a masked position, bytes of
 * a character that the mask may complete are outside the range; at a closed end none are.
 */
export function wholeCharacters(
  bytes: Uint8Array,
  openLeft: boolean,
  openRight: boolean,
): { start: number; end: number } {
  let start = 0;
  let end = bytes.length;
  if (openLeft) while (start < end && start < 3 && isContinuation(bytes[start]!)) start++;
  if (openRight) {
    let lead = end - 1;
    while (lead > start && end - lead < 4 && isContinuation(bytes[lead]!)) lead--;
    if (lead >= start && sequenceLength(bytes[lead]!) > end - lead) end = lead;
  }
  return { start, end };
}

/**
 * What the second byte of a sequence may be, by its lead; leads that are not here take any continuation byte.
 */
const SECOND: Record<number, [low: number, high: number]> = {
  224: [0xa0, 0xbf],
  237: [0x80, 0x9f],
  240: [0x90, 0xbf],
  244: [0x80, 0x8f],
};

/** Return where each character of `decodeBytes(bytes)` begins, in bytes: one for each code point. */
export function characterStarts(bytes: Uint8Array): number[] {
  const starts: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    starts.push(at);
    const lead = bytes[at]!;
    const [low, high] = SECOND[lead] ?? [0x80, 0xbf];
    const end = Math.min(bytes.length, at + Math.max(1, sequenceLength(lead)));
    at++;
    if (at < end && bytes[at]! >= low && bytes[at]! <= high) at++;
    else continue;
    while (at < end && isContinuation(bytes[at]!)) at++;
  }
  return starts;
}

/** Decode bytes as UTF-8; broken characters become U+FFFD. */
export function decodeBytes(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** Characters that modify the one before them: marks, joiners, skin tones. */
const MODIFIERS = /^(?:\p{M}|\p{Emoji_Modifier}|\u200d)+/u;

/**
 * Return the whole characters of a run of bytes, without modifiers that would attach to a masked position
 * before it.
 */
export function decodeRun(bytes: Uint8Array, openLeft: boolean, openRight: boolean): string {
  const { start, end } = wholeCharacters(bytes, openLeft, openRight);
  const text = decodeBytes(bytes.subarray(start, end));
  return openLeft ? text.replace(MODIFIERS, "") : text;
}
