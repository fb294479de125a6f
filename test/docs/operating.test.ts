import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { renewed } from "../../scripts/docs.ts";
import { SERVE_OPTIONS } from "../../src/cli/options.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const page = await readFile(join(PACKAGE_ROOT, "docs", "operating.md"), "utf8");

test("the tables of docs/operating.md are those of the code (npm run docs)", () => {
  assert.equal(page, renewed(page));
  const stale = page.replaceAll("| `--port <n>`", "| `--prot <n>`");
  assert.notEqual(stale, page);
  assert.equal(renewed(stale), page);
});

test("they have every flag, its variable, range and default, and every metric", () => {
  for (const { long, envVar } of SERVE_OPTIONS) {
    assert.match(page, new RegExp(`^\\| \`${long}[ \`].*\`${envVar}\``, "m"));
  }
  assert.match(page, /^\| `--port <n>` .* a whole number from 0 to 65535 +\| `8080` /m);
  assert.match(page, /^\| `didi_answers_total` +\| counter +\| `cache` +\| Answers by/m);
});
