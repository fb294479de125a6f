/** The packed package in an empty project: from the registry alone, without a script of a dependency. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, readdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { before, test } from "node:test";
import { promisify } from "node:util";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { scratch } from "./support/scratch.ts";

const run = promisify(execFile);
const root = scratch("package");
const installed = join(root, "node_modules", "didi-serve");

/**
 * As in docs/start.md: else onnxruntime-node's install script fetches CUDA binaries from outside the
 * registry.
 */
const env = { ...process.env, npm_config_ignore_scripts: "true" };
let tarball: string;

before(async () => {
  await run("npm", ["run", "--silent", "build"], { cwd: PACKAGE_ROOT });
  const pack = await run("npm", ["pack", "--silent", "--pack-destination", root], { cwd: PACKAGE_ROOT });
  tarball = join(root, pack.stdout.trim().split("\n").at(-1)!);
  await writeFile(join(root, "package.json"), JSON.stringify({ name: "empty", version: "1.0.0" }));
  await run("npm", ["install", "--no-audit", "--no-fund", tarball], { cwd: root, env });
});

test("it holds the default model and no other, and none of the sources", async () => {
  assert.deepEqual((await readdir(join(installed, "models"))).toSorted(), [
    "model.schema.json",
    "stories-didi",
  ]);
  assert.deepEqual(await readdir(join(installed, "src")), ["didi-serve.js"]);
});

test("model check passes on the model inside", async () => {
  const args = ["didi-serve", "model", "check", "stories-didi", "--device", "cpu"];
  const { stdout } = await run("npx", args, { cwd: root, env });
  assert.match(stdout, /^ok {2}graph +denoise in fp32 on cpu/m);
  assert.ok(
    stdout
      .trim()
      .split("\n")
      .every((line) => line.startsWith("ok  ")),
    stdout,
  );
});

test("npx runs the tarball", async () => {
  const args = [
    "--yes",
    `./${basename(tarball)}`,
    "generate",
    "Once upon a time",
    "--length",
    "8",
    "--steps",
    "2",
  ];
  const elsewhere = scratch("elsewhere");
  await copyFile(tarball, join(elsewhere, basename(tarball)));
  const { stdout } = await run("npx", args, { cwd: elsewhere, env });
  assert.match(stdout, /^Once upon a time/);
});
