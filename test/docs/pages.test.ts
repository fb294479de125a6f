/** Links and paths of the documents lead somewhere, and lines fit on a screen. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { FILES } from "./blocks.ts";

const PAGES = [...FILES, "CHANGELOG.md", "SECURITY.md", "models/README.md", "training/README.md"];
const MAX_COLUMNS = 110;
/** Paths that a reader can open; `deploy/docker/` and `src/main.ts` are among them, patterns are not. */
const PATH = /`((?:deploy|docs|loadtest|models|scripts|src|test|training|web)\/[\w./@-]+)`/g;
const read = (file: string) => readFileSync(join(PACKAGE_ROOT, file), "utf8");
const withoutCode = (text: string) => text.replace(/^```[\s\S]*?^```$/gm, "").replace(/`[^`\n]*`/g, "");

/** Return the anchors of a page's headings, as GitHub makes them. */
const anchorsOf = (file: string) =>
  Array.from(read(file).matchAll(/^#+ (.+)$/gm), ([, heading]) =>
    heading!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );

for (const page of PAGES)
  test(`the links of ${page} lead to files and headings that exist`, () => {
    for (const [link, target] of withoutCode(read(page)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue;
      const [path = "", anchor] = target!.split("#");
      const file = path === "" ? page : normalize(join(dirname(page), path));
      assert.ok(existsSync(join(PACKAGE_ROOT, file)), `${link}: ${file} does not exist`);
      if (anchor) assert.ok(anchorsOf(file).includes(anchor), `${link}: no heading of ${file} is ${anchor}`);
    }
  });

for (const page of PAGES)
  test(`the lines of ${page} have at most ${MAX_COLUMNS} columns, tables and long links apart`, () => {
    for (const [index, line] of read(page).split("\n").entries()) {
      // A row of a table cannot be broken, nor can an address.
      if (line.startsWith("|") || /^(>? *[-*]? *)\S+$/.test(line)) continue;
      assert.ok(line.length <= MAX_COLUMNS, `${page}:${index + 1} has ${line.length} columns`);
    }
  });

for (const page of FILES)
  test(`the paths that ${page} names exist`, () => {
    for (const [, path] of read(page).matchAll(PATH))
      assert.ok(existsSync(join(PACKAGE_ROOT, path!)), `${page}: ${path} does not exist`);
  });
