/** Templates: text with spans to fill and spans to choose from. */

import { invalid } from "../errors.ts";

/** An option of a choice. */
export interface Option {
  /** As it was given. */
  text: string;
  /** What it adds to the text, with the space before it. */
  inserted: string;
}

/** A part of a template: fixed text, a number of masks, or options of which one is filled in. */
export type Part = { text: string } | { masks: number } | { options: Option[] };

/** At most 7 digits: no context holds a longer span. */
const SPAN = /\{\{(?:mask:([1-9]\d{0,6})|choice(?::([^{}]*))?)\}\}/g;

/** Most options of one choice. */
const MAX_OPTIONS = 64;

/**
 * Return the parts of a template. A space before a choice is moved into its options, as tokenisers have it.
 * Throws InvalidRequestError naming the field.
 *
 * @param choices options of the `{{choice}}` spans without any, in order
 * @example
 * parseTemplate("A {{choice:red|blue}} ball{{mask:4}}"); // text, options " red" and " blue", text, masks
 */
export function parseTemplate(template: string, choices: readonly string[][] = []): Part[] {
  const parts: Part[] = [];
  const text = (part: string) => {
    const stray = /\{\{(?:mask|choice)/.exec(part);
    if (stray) {
      const shown = JSON.stringify(part.slice(stray.index, stray.index + 16));
      throw invalid(
        "/template",
        `has ${shown}, which is not a span: write {{mask:N}} with N of at least 1, or {{choice:a|b}}`,
      );
    }
    if (part !== "") parts.push({ text: part });
  };
  let at = 0;
  let used = 0;
  for (const match of template.matchAll(SPAN)) {
    text(template.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[1] !== undefined) {
      parts.push({ masks: Number(match[1]) });
      continue;
    }
    const [path, options] =
      match[2] === undefined ? [`/choices/${used}`, choices[used++]] : ["/template", match[2].split("|")];
    parts.push({ options: optionsOf(parts, path, options) });
  }
  text(template.slice(at));
  if (used < choices.length)
    throw invalid(`/choices/${used}`, "belongs to no span: write {{choice}} for it into /template");
  return parts;
}

/** Check the options of a choice, and take a space that ends the text before it into them. */
function optionsOf(parts: Part[], path: string, options: readonly string[] | undefined): Option[] {
  if (!options) throw invalid(path, "is missing: give the options of the {{choice}} span in /template");
  if (options.length < 2 || options.length > MAX_OPTIONS)
    throw invalid(path, `has a choice of ${options.length} options, and needs 2 to ${MAX_OPTIONS}`);
  if (options.includes("")) throw invalid(path, "has a choice with an empty option: remove it");
  if (new Set(options).size < options.length) throw invalid(path, "has a choice with two equal options");
  const before = parts.at(-1);
  const moves =
    before !== undefined &&
    "text" in before &&
    before.text.endsWith(" ") &&
    !options.some((o) => o[0] === " ");
  if (moves) before.text = before.text.slice(0, -1);
  if (moves && before.text === "") parts.pop();
  return options.map((text) => ({ text, inserted: moves ? ` ${text}` : text }));
}
