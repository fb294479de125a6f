/** The generated tables of the documents. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { test } from "node:test";
import { PAGES, renewed } from "../../docs/tools/tables.ts";
import { SERVE_OPTIONS } from "../../src/cli/options.ts";

const pages = new Map<string, string>();
for (const path of PAGES) pages.set(basename(path, ".md"), await readFile(path, "utf8"));

test("every generated table is that of the code and of the figures (npm run docs)", () => {
  for (const [name, page] of pages) assert.equal(page, renewed(page), `${name}.md is stale: npm run docs`);
  const page = pages.get("flags")!;
  const stale = page.replaceAll("| `--port <n>`", "| `--prot <n>`");
  assert.notEqual(stale, page);
  assert.equal(renewed(stale), page);
});

test("they have every flag, its variable, range and default, every metric and every kind of problem", () => {
  const flags = pages.get("flags")!;
  for (const { long, envVar } of SERVE_OPTIONS.filter(({ hidden }) => !hidden))
    assert.match(flags, new RegExp(`^\\| \`${long}[ \`].*\`${envVar}\``, "m"));
  assert.match(flags, /^\| `--port <n>` .* a whole number from 0 to 65535 +\| `8080` /m);
  assert.match(pages.get("metrics")!, /^\| `didi_answers_total` +\| counter +\| `cache` +\| Answers by/m);
  assert.match(pages.get("errors")!, /^\| 429 +\| `overloaded` +\| Too many requests +\| \S/m);
});
