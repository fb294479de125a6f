/** Text of others, made fit for a terminal. */

/**
 * The text with every control, format and line-ending character written out, such as `\\u{1b}`: what stands in a file that
 * somebody sent must not move the cursor, hide text or forge a line.
 */
export function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
