/** The tree stays small enough to read: entries at the top, files of a folder, lines of a file. */

import assert from "node:assert/strict";
import { type Dirent, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../src/package-root.ts";

const CODE = /\.(ts|js|mjs|cjs|py|sh|java|go)$/;
const GENERATED = ["src/server/api-types.ts"];
const ignored = readFileSync(join(PACKAGE_ROOT, ".gitignore"), "utf8").split("\n");

const visible = (folder: string): Dirent[] =>
  readdirSync(join(PACKAGE_ROOT, folder), { withFileTypes: true }).filter((entry) => {
    const path = join(folder, entry.name);
    return (
      !entry.name.startsWith(".") && !ignored.some((line) => line === `${path}/` || line === `${entry.name}/`)
    );
  });

/** Return the folders of the tree and their files, those that git ignores left out. */
function folders(folder = ""): { folder: string; files: string[] }[] {
  const entries = visible(folder);
  const files = entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
  const inside = entries.filter((entry) => entry.isDirectory());
  return [{ folder, files }, ...inside.flatMap(({ name }) => folders(join(folder, name)))];
}

test("the top level has at most 18 visible entries", () => {
  const names = visible("").map(({ name }) => name);
  assert.ok(names.length <= 18, names.join(" "));
});

const rewardsIn = (folder: string): number =>
  JSON.parse(readFileSync(join(PACKAGE_ROOT, folder, "model.json"), "utf8")).rewards?.length ?? 0;

test("a folder has at most 12 files of its own, and a model folder at most 13 and its rewards", () => {
  for (const { folder, files } of folders().slice(1)) {
    // The format of a model folder is flat: three graphs in three precisions, four other files, and rewards.
    const limit = files.includes("model.json") ? 13 + rewardsIn(folder) : 12;
    assert.ok(files.length <= limit, `${folder} has ${files.length} files`);
  }
});

test("a file of code has at most 300 lines, the generated ones apart", () => {
  const written = folders().flatMap(({ folder, files }) => files.map((file) => join(folder, file)));
  for (const path of written.filter((file) => CODE.test(file) && !GENERATED.includes(file))) {
    const lines = readFileSync(join(PACKAGE_ROOT, path), "utf8").split("\n").length - 1;
    assert.ok(lines <= 300, `${path} has ${lines} lines`);
  }
});
