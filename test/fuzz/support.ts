/** Settings of the properties, and shared arbitraries of request bodies. */

import fc from "fast-check";
import { fieldsOf } from "../../src/server/openapi.ts";

/** The same cases in every run, few enough for the quick tests. */
export const RUNS = { seed: 20261125, numRuns: 300 };
/** For properties that send requests to a server. */
export const FEW_RUNS = { seed: 20261125, numRuns: 150 };

/** Any JSON value. */
export const anyValue = fc.jsonValue({ maxDepth: 4 });
/** A property name, often one with a meaning in JavaScript. */
const key = fc.oneof(
  fc.constantFrom("__proto__", "constructor", "toString", "", "a/b", "~"),
  fc.string({ maxLength: 8 }),
);
const field = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...fieldsOf("GenerateRequest")) },
  { weight: 1, arbitrary: key },
);
const value = fc.oneof(
  anyValue,
  fc.integer({ min: -2, max: 40 }),
  fc.constantFrom("auto", "random", "rgas", { mode: "rgas" }, { mode: "none" }, [257, 1], "a{{mask:2}}"),
);
/** A request as JSON text, with repeated fields and fields such as `__proto__`. */
export const bodyText = fc
  .tuple(
    fc.constantFrom('"prompt":"a","length":2', '"template":"{{mask:2}}"', '"tokens":[257,1]', ""),
    fc.array(fc.tuple(field, value), { maxLength: 4 }),
  )
  .map(([start, fields]) => {
    const rest = fields.map(([name, content]) => `${JSON.stringify(name)}:${JSON.stringify(content)}`);
    return `{${['"steps":1', ...(start ? [start] : []), ...rest].join()}}`;
  });
