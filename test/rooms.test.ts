import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { test } from "node:test";
import { PACKAGE_ROOT } from "../src/package-root.ts";

/** Each room may import from those after it. */
const ROOMS = ["cli", "redis", "http", "engine", "runtime", "model", "diffusion"];

const SRC = join(PACKAGE_ROOT, "src");
const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));

test("imports run one way: cli -> http -> engine -> runtime -> model -> diffusion", () => {
  let edges = 0;
  for (const file of files) {
    const room = ROOMS.indexOf(file.split("/")[0]!);
    if (room < 0) continue;
    for (const [, target] of readFileSync(join(SRC, file), "utf8").matchAll(/from "(\.[^"]+)"/g)) {
      const imported = relative(SRC, resolve(SRC, file, "..", target!));
      const other = ROOMS.indexOf(imported.split("/")[0]!);
      if (other < 0) continue;
      edges++;
      assert.ok(other >= room, `${file} imports ${imported}`);
    }
  }
  assert.ok(edges > 20);
});

test("the client imports itself, and types of http", () => {
  const own = files.filter((name) => name.startsWith("client/"));
  assert.ok(own.length > 3);
  for (const file of own)
    for (const [line, target] of readFileSync(join(SRC, file), "utf8").matchAll(
      /^(?:im|ex)port[^;]*? from "([^"]+)"/gm,
    ))
      assert.ok(
        target!.startsWith("./") || (/^import type /.test(line) && target!.startsWith("../http/")),
        `${file}: ${line}`,
      );
});

test("diffusion knows no package, no clock and no randomness of its own", () => {
  for (const file of files.filter((name) => name.startsWith("diffusion/"))) {
    const text = readFileSync(join(SRC, file), "utf8");
    assert.doesNotMatch(text, /from "[^.]/, file);
    assert.doesNotMatch(text, /Date\.|performance\.|Math\.random|setTimeout/, file);
  }
});
