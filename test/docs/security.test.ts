import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

const page = readFileSync(join(PACKAGE_ROOT, "SECURITY.md"), "utf8");

test("every defence of SECURITY.md names tests, and they are there", () => {
  const [, defended = ""] = page.split("## What is defended, and how");
  const entries = defended.split("\n## ")[0]!.split(/^- /m).slice(1);
  assert.ok(entries.length > 10);
  for (const entry of entries) {
    const named = Array.from(entry.matchAll(/`(test\/[^`]+)`/g), ([, path]) => path!);
    assert.ok(named.length > 0, entry);
    for (const path of named) {
      const [folder, ending] = path.split("/*");
      const found =
        ending === undefined
          ? existsSync(join(PACKAGE_ROOT, path))
          : readdirSync(join(PACKAGE_ROOT, folder!)).some((name) => name.endsWith(ending));
      assert.ok(found, path);
    }
  }
});
