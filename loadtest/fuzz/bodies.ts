/** Bodies of requests: right ones that cost little, and what becomes of them by accident or malice. */

import { fieldsOf } from "../../src/http/openapi.ts";
import type { Random } from "../traffic/random.ts";
import { hostileText, hostileValue } from "./values.ts";

const FIELDS = fieldsOf("GenerateRequest");
const COMPLETION_FIELDS = [
  "max_tokens",
  "suffix",
  "stream",
  "stream_options",
  "diffusing",
  "user",
  "model",
  "frequency_penalty",
];

/** Field by field, as JSON text. */
type Fields = Map<string, string>;

const ids = (random: Random) =>
  JSON.stringify(Array.from({ length: random.integer(1, 6) }, () => random.integer(0, 300)));

function generate(random: Random): Fields {
  const fields: Fields = new Map([["steps", "1"]]);
  const way = random.integer(0, 3);
  if (way === 0) fields.set("prompt", JSON.stringify(hostileText(random).slice(0, 100))).set("length", "3");
  if (way === 1) fields.set("prompt_tokens", ids(random)).set("length", "2");
  if (way === 2) fields.set("template", JSON.stringify(`${hostileText(random).slice(0, 60)}{{mask:2}} end`));
  if (way === 3) fields.set("tokens", `[257,${ids(random).slice(1)}`);
  if (random.chance(0.3)) fields.set("seed", String(random.integer(0, 1000)));
  return fields;
}

function completion(random: Random): Fields {
  const fields: Fields = new Map([
    ["model", '"tiny-guided"'],
    ["prompt", JSON.stringify(hostileText(random).slice(0, 60))],
    ["max_tokens", "2"],
    ["steps", "1"],
  ]);
  if (random.chance(0.3)) fields.set("stream", "true");
  return fields;
}

function inference(random: Random): Fields {
  const data = JSON.stringify(hostileText(random).slice(0, 60));
  return new Map([
    ["inputs", `[{"name":"text_input","shape":[1],"datatype":"BYTES","data":[${data}]}]`],
    ["parameters", '{"length":2,"steps":1}'],
  ]);
}

/** The routes that take a body, with what makes a right one. */
export const ROUTES: readonly [path: string, make: (random: Random) => Fields][] = [
  ["/generate", generate],
  ["/v1/completions", completion],
  ["/v2/models/tiny-guided/infer", inference],
];

/** A body: mostly right, with up to three fields changed; now and then broken as text. */
export function bodyOf(
  random: Random,
  make: (random: Random) => Fields,
  extra: readonly [string, string][] = [],
): Buffer {
  const fields = make(random);
  for (const [name, value] of extra) fields.set(name, value);
  for (let changes = random.integer(0, 3); changes > 0; changes--) {
    const name = random.chance(0.8)
      ? random.pick([...FIELDS, ...COMPLETION_FIELDS, ...fields.keys()])
      : random.pick(["__proto__", "constructor", "toString", "", "a/b~c", "\u0000", "prompt "]);
    if (random.chance(0.2)) fields.delete(name);
    else fields.set(name, hostileValue(random));
  }
  let text = `{${[...fields].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join()}}`;
  if (random.chance(0.02)) text = text.slice(0, random.integer(0, text.length));
  if (random.chance(0.02)) text = hostileValue(random);
  if (random.chance(0.01)) text = `{${Array.from({ length: 60_000 }, (_, i) => `"f${i}":0`).join()}}`;
  const bytes = Buffer.from(text);
  if (random.chance(0.03) && bytes.length > 0)
    bytes[random.integer(0, bytes.length - 1)] = random.pick([0xff, 0xc0, 0x00, 0xed]);
  return bytes;
}
