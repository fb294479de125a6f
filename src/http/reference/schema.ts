/** Schemas as HTML: types, ranges, and a row for each field. */

import { nameOf, SCHEMAS, type Schema } from "./contract.ts";
import { type Html, html, joined, type Part } from "./html.ts";

const count = (value: number) => value.toLocaleString("en");
const json = (value: unknown) => html`<code>${JSON.stringify(value)}</code>`;

export const schemaLink = (name: string) => html`<a href="#schema-${name}">${name}</a>`;

/** Prose of the contract: `code` between backticks, and names of schemas as links. */
export function prose(text: string | undefined): Part {
  return (text ?? "")
    .trim()
    .split(/`([^`]*)`/)
    .map((piece, i) =>
      i % 2 === 1
        ? html`<code>${piece}</code>`
        : piece.split(/\b((?:[A-Z][a-z]+){2,})\b/).map((word) => (word in SCHEMAS ? schemaLink(word) : word)),
    );
}

/** What kind of value it is. */
export function typeOf(schema: Schema): Part {
  if (schema.$ref) return schemaLink(nameOf(schema.$ref));
  if (schema.oneOf) return joined(schema.oneOf.map(typeOf), " or ");
  if (schema.const !== undefined) return json(schema.const);
  if (schema.enum) return joined(schema.enum.map(json), " or ");
  const types = [schema.type ?? "any"].flat();
  return joined(
    types.map((type) => (type === "array" && schema.items ? ["array of ", typeOf(schema.items)] : type)),
    " or ",
  );
}

/** A range in words; empty if it has no bounds. */
function range(unit: string, least?: number, most?: number, above?: number, below?: number): string {
  if (least !== undefined && most !== undefined)
    return (least === most ? count(least) : `${count(least)} to ${count(most)}`) + unit;
  const bounds = [
    least !== undefined && `at least ${count(least)}`,
    above !== undefined && `above ${count(above)}`,
    most !== undefined && `at most ${count(most)}`,
    below !== undefined && `below ${count(below)}`,
  ].filter((bound) => bound !== false);
  return bounds.length > 0 ? bounds.join(", ") + unit : "";
}

/** The bounds of a value, those of its alternatives and items included. */
export function rangesOf(schema: Schema): Part {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const own: Part[] = [
    range("", minimum, maximum, exclusiveMinimum, exclusiveMaximum),
    range(" characters", schema.minLength, schema.maxLength),
    range(" items", schema.minItems, schema.maxItems),
  ].filter((bounds) => bounds !== "");
  if (schema.pattern) own.push(html`matches <code>${schema.pattern}</code>`);
  const each = schema.items && rangesOf(schema.items);
  if (each && !isEmpty(each)) own.push(["each ", each]);
  const alternatives = (schema.oneOf ?? []).map(rangesOf).filter((part) => !isEmpty(part));
  return joined([...own, ...alternatives], "; ");
}

const isEmpty = (part: Part) => html`${part}`.text === "";

/** The shapes of objects that are written where they are used. */
const inline = (schema: Schema): Schema[] => [
  ...(schema.properties ? [schema] : []),
  ...(schema.oneOf ?? []).flatMap(inline),
];

function rows(schema: Schema, prefix: string): Html[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, field]) => {
    const required = schema.required?.includes(name) ?? false;
    const bounds = rangesOf(field);
    const row = html`<tr>
<th scope="row"><code>${prefix}${name}</code>${required && html` <small>required</small>`}</th>
<td>${typeOf(field)}${!isEmpty(bounds) && html`<br><small>${bounds}</small>`}</td>
<td>${prose(field.description)}${field.default !== undefined && html` <span>Default: ${json(field.default)}.</span>`}${
      field.examples && html` <span>Example: ${joined(field.examples.map(json), ", ")}.</span>`
    }</td>
</tr>`;
    const nested = inline(field).flatMap((shape) => rows(shape, `${prefix}${name}.`));
    const items = field.items ? inline(field.items) : [];
    return [row, ...nested, ...items.flatMap((shape) => rows(shape, `${prefix}${name}[].`))];
  });
}

/** The fields of a schema as a table; of one that has none, its type. */
export function fieldsOf(schema: Schema): Html {
  const table = rows(schema, "");
  if (table.length === 0) {
    const bounds = rangesOf(schema);
    return html`<p>${typeOf(schema)}${!isEmpty(bounds) && [": ", bounds]}</p>`;
  }
  return html`<table>
<thead><tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>
<tbody>
${table}
</tbody>
</table>`;
}
