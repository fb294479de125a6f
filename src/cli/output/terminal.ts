/** Text for a terminal. */

/**
 * Return the text with control, format and line-ending characters written out, such as `\\u{1b}`. Text from a
 * file must not move the cursor, hide other text or forge a line.
 */
export function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** Return rows as lines of aligned columns; the first row is the header. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const pad = (cell: string, i: number) => cell.padEnd(widths[i]!);
  return rows.map((row) => row.map(pad).join("  ").trimEnd());
}
