#!/usr/bin/env node
/**
 * The command `didi-serve`: runs `dist/main.js`. In a checkout it first builds what has changed since the
 * last build.
 *
 * `--build-only` runs no command after that.
 */

import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const stamp = join(root, "dist", ".built");

/** Whether a source is newer than the last build that succeeded. */
function isStale() {
  if (!existsSync(stamp)) return true;
  const built = statSync(stamp).mtimeMs;
  const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
  return sources.some((name) => statSync(join(root, "src", name)).mtimeMs > built);
}

function build() {
  console.error("didi-serve: building …");
  const started = new Date();
  const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  // Without checking types, which `npm run typecheck` does: half of the time.
  const { status } = spawnSync(process.execPath, [compiler, "-p", join(root, "src"), "--noCheck"], {
    stdio: ["ignore", 2, 2],
  });
  if (status !== 0) process.exit(1);
  // A source that was changed during the build is newer than its start.
  writeFileSync(stamp, started.toISOString());
  utimesSync(stamp, started, started);
}

const buildOnly = process.argv[2] === "--build-only";
// The package holds no sources.
if (existsSync(join(root, "src", "main.ts")) && isStale()) build();
if (!buildOnly) {
  // npm runs scripts in the folder of the package; paths are relative to the folder of the caller.
  const { npm_lifecycle_event: script, npm_package_json: manifest, INIT_CWD: caller } = process.env;
  const isOurs = manifest === join(root, "package.json") && (script === "start" || script === "didi-serve");
  if (isOurs && caller) process.chdir(caller);
  await import("../dist/main.js");
}
