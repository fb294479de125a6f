import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const read = (...path: string[]) => readFile(join(PACKAGE_ROOT, ...path), "utf8");

test("docs/dependencies.md has every package of package.json, and no other, with its licence", async () => {
  const page = await read("docs", "dependencies.md");
  const { dependencies, optionalDependencies, devDependencies } = JSON.parse(await read("package.json"));
  const [, atRunTime = "", forDevelopment = ""] = page.split(/^## /m);
  for (const [part, packages] of [
    [atRunTime, { ...dependencies, ...optionalDependencies }],
    [forDevelopment, devDependencies],
  ] as const) {
    const rows = Array.from(
      part.matchAll(/^\| `([^`]+)` +\| \d{4} +\| ([^|]+?) +\| [\d.]+ MB +\| \S/gm),
      ([, name, licence]) => ({ name: name!, licence }),
    );
    assert.deepEqual(rows.map(({ name }) => name).toSorted(), Object.keys(packages).toSorted());
    for (const { name, licence } of rows)
      assert.equal(licence, JSON.parse(await read("node_modules", name, "package.json")).license, name);
  }
});
