/** HTML as a value: what is put into it is escaped, unless it is HTML already. */

/** A piece of HTML. */
export class Html {
  constructor(readonly text: string) {}
}

/** What may be put into HTML; `undefined` and `false` are nothing. */
export type Part = string | number | Html | undefined | false | readonly Part[];

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

function textOf(part: Part): string {
  if (part === undefined || part === false) return "";
  if (part instanceof Html) return part.text;
  if (Array.isArray(part)) return part.map(textOf).join("");
  return String(part).replace(/[&<>"]/g, (character) => ENTITIES[character]!);
}

/** A template of HTML. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Html {
  return new Html(strings.reduce((text, string, i) => text + textOf(parts[i - 1]) + string));
}

/** Parts with `between` between them. */
export function joined(parts: readonly Part[], between: Part): Part {
  return parts.flatMap((part, i) => (i === 0 ? [part] : [between, part]));
}
