/** Values that no client should send, as JSON text. */

import type { Random } from "../traffic/random.ts";

const NUMBERS = [
  ...[
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "1.5",
    "1e400",
    "-1e400",
    "1e-400",
    "9007199254740993",
    "1e21",
    "4294967296",
  ],
  ...["2147483648", "-2147483649", "1024", "1025", "NaN", "Infinity", "0x10", "01", "+1", "1e", ".5"],
];

const STRINGS = [
  ...[
    "",
    "a",
    "auto",
    "random",
    "rgas",
    "none",
    "__proto__",
    "constructor",
    "\u0000",
    "\ufffe",
    "\u202e",
    "[MASK]",
  ],
  ...[
    "<|endoftext|>",
    "{{mask:3}}",
    "{{mask:0}}",
    "{{mask:99999999999}}",
    "{{mask",
    "{{{{mask:1}}}}",
    "🙂",
    "e\u0301",
  ],
];

/** The body of a text, of kinds that have broken parsers. */
export function hostileText(random: Random): string {
  const count = random.integer(1, random.chance(0.02) ? 60_000 : 300);
  const unit = random.pick([
    "a",
    " ",
    "\u0301",
    "🙂",
    "\ud800",
    "\\",
    '"',
    "{{",
    "{{mask:1}}",
    "\n",
    "\u0000",
    "é",
    "░",
  ]);
  return random.chance(0.5) ? random.pick(STRINGS) : unit.repeat(count);
}

/** A string as JSON, escaped in one of the ways there are, or not quite. */
function stringText(random: Random): string {
  const text = JSON.stringify(hostileText(random));
  if (random.chance(0.05)) return text.slice(0, -1);
  if (random.chance(0.05)) return `"\\u${random.pick(["d800", "DC00", "zzzz", "0000"])}"`;
  return text;
}

function nested(random: Random): string {
  const depth = random.chance(0.05) ? 50_000 : random.integer(2, 200);
  const [open, close] = random.pick([
    ["[", "]"],
    ['{"a":', "}"],
    ['{"__proto__":', "}"],
  ]) as [string, string];
  return `${open.repeat(depth)}${open.endsWith(":") ? "1" : ""}${random.chance(0.1) ? "" : close.repeat(depth)}`;
}

/** Any value. */
export function hostileValue(random: Random, depth = 0): string {
  const kind = random.integer(0, depth > 3 ? 4 : 9);
  if (kind <= 1) return random.pick(NUMBERS);
  if (kind <= 3) return stringText(random);
  if (kind === 4) return random.pick(["null", "true", "false", "[]", "{}", "undefined", "[,]", "{,}"]);
  if (kind <= 6) {
    const count = random.chance(0.03) ? random.integer(1000, 70_000) : random.integer(0, 5);
    const item = hostileValue(random, depth + 1);
    // Large values are made of one: a fault of each item is what is looked for.
    return `[${Array.from({ length: item.length > 50 ? Math.min(count, 5) : count }, () => item).join()}]`;
  }
  if (kind === 7) return nested(random);
  const keys = [
    "__proto__",
    "constructor",
    "mode",
    "scale",
    "candidates",
    "rerank_ratio",
    "a",
    "toString",
    "",
  ];
  const fields = Array.from({ length: random.integer(1, 4) }, () => {
    return `${JSON.stringify(random.pick(keys))}:${hostileValue(random, depth + 1)}`;
  });
  return `{${fields.join()}}`;
}
