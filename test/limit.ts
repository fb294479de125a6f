/**
 * A time limit for every test that names none, loaded before each file by test/run.ts.
 *
 * The flag --test-timeout limits a whole file on Node 20. DIDI_TEST_LIMIT_MS is the limit in milliseconds.
 */

import { createRequire, syncBuiltinESMExports } from "node:module";

type Test = typeof import("node:test").test;

const limit = { timeout: Number(process.env.DIDI_TEST_LIMIT_MS ?? 60_000) };
const exported = createRequire(import.meta.url)("node:test") as { test: Test };
const { test } = exported;

/** As `test`, whose arguments are a name, options and a function, each of which may be left out. */
function limited(...args: unknown[]) {
  const at = args.findIndex((arg) => typeof arg !== "string");
  const given = at >= 0 && typeof args[at] === "object" ? args.splice(at, 1)[0] : {};
  args.splice(at < 0 ? args.length : at, 0, { ...limit, ...(given as object) });
  return test(...(args as Parameters<Test>));
}

exported.test = Object.assign(limited, test, { test: limited }) as Test;
syncBuiltinESMExports();
