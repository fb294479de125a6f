import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../../src/package-root.ts";

test("src/diffusion uses no clock and no random source", () => {
  const folder = join(PACKAGE_ROOT, "src/diffusion");
  const files = readdirSync(folder);
  assert.ok(files.includes("sampler.ts"));
  for (const file of files)
    assert.doesNotMatch(
      readFileSync(join(folder, file), "utf8"),
      /Date\.|performance\.|Math\.random|setTimeout/,
      file,
    );
});
