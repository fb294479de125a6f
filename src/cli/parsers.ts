/** Parsers of flag values. */

import { existsSync } from "node:fs";
import { InvalidArgumentError, Option } from "commander";
import { modelFolder } from "../model/model.ts";
import { ANY_ORIGIN } from "../server/access/origins.ts";

/**
 * Parse the value of a flag. Throws InvalidArgumentError, which commander prints in one line. `values`
 * describes the allowed values for the documentation.
 */
export type Parser<T> = ((text: string) => T) & { values: string };

function parser<T>(values: string, parse: (text: string) => T | undefined): Parser<T> {
  const checked = (text: string) => {
    const value = parse(text);
    if (value === undefined) throw new InvalidArgumentError(`It must be ${values}.`);
    return value;
  };
  return Object.assign(checked, { values });
}

/** Return a parser of integers in [least, most]. */
export const integer = (least: number, most: number): Parser<number> =>
  parser(`a whole number from ${least} to ${most}`, (text) => {
    const value = Number(text);
    return /^\d+$/.test(text) && value >= least && value <= most ? value : undefined;
  });

/** Return a parser of numbers in [least, most]. */
export const decimal = (least: number, most: number): Parser<number> =>
  parser(`a number from ${least} to ${most}`, (text) => {
    const value = Number(text);
    return text.trim() !== "" && value >= least && value <= most ? value : undefined;
  });

/** Parse the URL of a Redis. */
export const redisUrl: Parser<string> = parser("redis://HOST:PORT or rediss://HOST:PORT", (text) =>
  /^rediss?:\/\/[^/]/.test(text) && URL.canParse(text) ? text : undefined,
);

/** Return a parser of `auto` and of what `parse` accepts. */
export const orAuto = (parse: Parser<number>): Parser<number | "auto"> =>
  Object.assign((text: string) => (text === "auto" ? text : parse(text)), {
    values: `auto, or ${parse.values}`,
  });

const ORIGINS = "scheme, host and port such as https://example.org, or *";

/** Parse origins separated by commas, and add them to those of earlier flags. */
export const origins: Parser<string[]> = Object.assign(
  (text: string, before?: string[]) => [
    ...(before ?? []),
    ...text.split(",").map((part) => {
      const origin = part.trim();
      if (origin === ANY_ORIGIN || (URL.canParse(origin) && new URL(origin).origin === origin)) return origin;
      throw new InvalidArgumentError(`It must be ${ORIGINS}, not ${origin}.`);
    }),
  ],
  { values: `${ORIGINS}; several with commas` },
);

/**
 * Return a parser of a model, or of several separated by commas, which adds them to those of earlier flags. A
 * folder may have a comma in its name. `byDefault` is the default of the flag.
 */
export const modelNames = (byDefault: string[]): Parser<string[]> =>
  Object.assign(
    (text: string, before?: string[]) => [
      ...(before === byDefault ? [] : (before ?? [])),
      ...(existsSync(modelFolder(text)) ? [text] : text.split(",").map((name) => name.trim())),
    ],
    { values: "text; several with commas" },
  );

/** Return a flag without a value. */
export function toggle(flag: string, description: string, variable: string): Option {
  return new Option(flag, description).env(variable).default(false);
}

/** Parse a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z; return it in ISO 8601, UTC. */
export const moment: Parser<string> = parser(
  "a date such as 2027-01-31, or a time 2027-01-31T12:00:00Z",
  (text) =>
    /^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:\d{2}))?$/.test(text) && !Number.isNaN(Date.parse(text))
      ? new Date(text).toISOString()
      : undefined,
);

/**
 * Unset the environment variable of a flag if it is empty, and that of a flag without a value if it says no:
 * commander would parse the empty text, and treat any value of a flag without one as true.
 */
export function unsetVariable({ required, optional, envVar }: Option): void {
  if (envVar === undefined) return;
  const value = process.env[envVar];
  const isSwitch = !required && !optional;
  if (value === "" || (isSwitch && /^(0|false|no|off)$/i.test(value ?? ""))) delete process.env[envVar];
}
