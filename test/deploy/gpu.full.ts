/**
 * The rehearsal of deploy/gpu: pieces come one by one to an empty folder, in a namespace without network and
 * with a PATH that has no Node; the check runs there on the CPU.
 */

import assert from "node:assert/strict";
import { type ExecFileSyncOptionsWithStringEncoding, execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import type { DeviceReport } from "../../loadtest/device/report.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { findProgram } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";

/** Programs that receive.sh and check.sh may use. */
const PROGRAMS = ["cat", "cp", "mkdir", "mv", "rm", "rmdir", "sh", "sha256sum", "tar", "xz"];
const PIECE_MB = 20;

const isolated = spawnSync("unshare", ["-n", "true"]).status === 0;
const skip =
  (process.platform !== "linux" && "for Linux") || (!isolated && "unshare -n is not allowed (needs root)");
const root = scratch("gpu");
const [bin, packed, portion, there, results] = ["bin", "packed", "portion", "there", "results"].map((name) =>
  join(root, name),
) as [string, string, string, string, string];
const pieces = () => readdirSync(packed).filter((name) => name.startsWith("app."));

before(() => {
  if (skip) return;
  mkdirSync(bin);
  for (const name of PROGRAMS) symlinkSync(findProgram(name)!, join(bin, name));
  const flags = ["--random", TINY_GUIDED, "--cuda", "none", "--piece-mb", `${PIECE_MB}`, "--out", packed];
  execFileSync(process.execPath, ["--import", "tsx", "deploy/gpu/pack.ts", ...flags], {
    cwd: PACKAGE_ROOT,
    env: { ...process.env, XZ_OPT: "-0" },
    stdio: ["ignore", "ignore", "inherit"],
  });
});

/** Run a script as the other machine would: no network, no variables, no Node. */
function onTheOther(script: string, ...args: string[]) {
  const options: ExecFileSyncOptionsWithStringEncoding = { encoding: "utf8", cwd: root };
  const command = ["-n", "env", "-i", `PATH=${bin}`, join(bin, "sh"), join(packed, script), ...args];
  return spawnSync(findProgram("unshare")!, command, options);
}

/** Send one piece, or the first kilobyte of it. */
function send(piece: string, damaged = false) {
  rmSync(portion, { recursive: true, force: true });
  mkdirSync(portion);
  cpSync(join(packed, "SHA256SUMS"), join(portion, "SHA256SUMS"));
  // A piece that is cut off.
  if (damaged)
    execFileSync("sh", ["-c", `head -c 1000 "${join(packed, piece)}" > "${join(portion, piece)}"`]);
  else cpSync(join(packed, piece), join(portion, piece));
  return onTheOther("receive.sh", portion, there);
}

test("pieces are put together once all have come, and a damaged one is refused", { skip }, () => {
  const names = pieces();
  assert.ok(names.length > 2, `${names.length} pieces`);
  const broken = send(names[0]!, true);
  assert.equal(broken.status, 1);
  assert.match(broken.stderr, /damaged, send again: app\.tar\.xz\.000/);
  for (const [i, name] of names.entries()) {
    const { status, stdout, stderr } = send(name);
    assert.equal(status, 0, stderr);
    assert.match(stdout, i < names.length - 1 ? /^still missing: app/ : /^complete: /);
  }
});

test("the check runs there and reports both models", { skip }, () => {
  const flags = ["--device", "cpu", "--quick", "--rows", "1,2", "--steps", "2,4", "--length", "16"];
  const { status, stdout, stderr } = onTheOther("check.sh", there, results, ...flags, "--precision", "fp32");
  assert.equal(status, 0, stdout + stderr);
  const report: DeviceReport = JSON.parse(readFileSync(join(results, "device-check.json"), "utf8"));
  assert.equal(report.device, "cpu");
  assert.deepEqual([...new Set(report.speeds.map(({ model }) => model))], ["stories-didi", "random-768x12"]);
  for (const { tokensPerSecond } of report.speeds) assert.ok(tokensPerSecond.every((value) => value! > 0));
  const found = (part: string) =>
    report.checks.filter((check) => check.part === part).map((check) => check.found);
  assert.equal(found("agreement with the CPU").length, 2);
  // On the CPU, rows do not depend on their company.
  for (const check of report.checks.filter(({ part }) => part === "a row in company"))
    assert.deepEqual(new Set(Object.values(check.figures!)), new Set([true]));
  assert.match(found("PyTorch")[0]!, /not measured: python3 has no torch/);
  assert.match(readFileSync(join(results, "device-check.md"), "utf8"), /^# Device check: cpu/);
  assert.equal(JSON.parse(readFileSync(join(results, "doctor.json"), "utf8")).runs.device, "cpu");
});

test("a part that fails does not lose the others", { skip }, () => {
  rmSync(join(there, "app", "models", "stories-didi", "denoise.fp16.onnx"));
  const flags = ["--device", "cpu", "--quick", "--rows", "1", "--steps", "2", "--length", "16"];
  const { status, stderr } = onTheOther("check.sh", there, results, ...flags);
  assert.equal(status, 1, stderr);
  const report: DeviceReport = JSON.parse(readFileSync(join(results, "device-check.json"), "utf8"));
  const failed = report.checks.filter(({ holds }) => holds === false);
  assert.match(failed[0]!.found, /denoise\.fp16\.onnx/);
  // In the other precision and of the other model everything was measured.
  assert.deepEqual(
    report.speeds.map(({ model, precision }) => `${model} ${precision}`),
    ["stories-didi fp32", "random-768x12 fp32"],
  );
});
