/** Errors at start-up: one line, an exit code, and no process left. */

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { untilReady } from "../../loadtest/servers/server.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { damagedModel, mismadeModel } from "../support/damage.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { freePort } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";
import { ENTRY } from "../support/server.ts";
import { answers } from "../support/until.ts";
import type { Outcome } from "./support.ts";

const root = scratch("start");

const noLimits = spawnSync("prlimit", ["--version"]).status !== 0 && "there is no prlimit here";

/** Start `serve` in its own process group on a free port, under limits of prlimit. */
function start(args: string[], limits: string[] = []) {
  const serve = [
    process.execPath,
    ...ENTRY,
    "serve",
    "--port",
    "0",
    "--device",
    "cpu",
    "--threads",
    "1",
    ...args,
  ];
  const [program, ...rest] = limits.length > 0 ? ["prlimit", ...limits, ...serve] : serve;
  return spawn(program!, rest, { cwd: PACKAGE_ROOT, detached: true, stdio: ["ignore", "pipe", "pipe"] });
}

function groupLives(leader: number): boolean {
  try {
    return process.kill(-leader, 0);
  } catch {
    return false;
  }
}

/** Run it to its end; `left` tells whether a process of its group is left. */
async function ended(args: string[], limits: string[] = []): Promise<Outcome & { left: boolean }> {
  const child = start(args, limits);
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  // The compiler process of tsx ends a moment later.
  for (let i = 0; i < 500 && groupLives(child.pid!); i++) await sleep(10);
  const left = groupLives(child.pid!);
  if (left) process.kill(-child.pid!, "SIGKILL");
  return { code, stdout, stderr, left };
}

/** Assert one line, exit 1, and no process left. */
function checkRefusal({ code, stdout, stderr, left }: Awaited<ReturnType<typeof ended>>, says: RegExp): void {
  assert.match(stderr, says);
  assert.match(stderr, /^(didi-serve: loading [^\n]+\n)?didi-serve: [^\n]+\n$/);
  assert.equal(code, 1);
  assert.equal(stdout, "");
  assert.equal(left, false, "a process was left");
}

const flip = (at: number) => (bytes: Buffer) => {
  bytes[at]! ^= 0xff;
  return bytes;
};
const half = (bytes: Buffer) => bytes.subarray(0, bytes.length >> 1);
/** The graph's opset is the last byte of the file. */
const opset99 = (bytes: Buffer) => Buffer.concat([bytes.subarray(0, -1), Buffer.of(99)]);

const MODELS: [name: string, make: (folder: string) => Promise<string>, says: RegExp][] = [
  [
    "a graph of which a byte has changed",
    (folder) => damagedModel(folder, { "denoise.fp32.onnx": flip(4000) }),
    /denoise\.fp32\.onnx is damaged: its sha256 is [0-9a-f]{64}, and model\.json says/,
  ],
  [
    "a graph that was damaged before its sum was taken",
    (folder) => mismadeModel(folder, { "denoise.fp32.onnx": half }),
    /denoise\.fp32\.onnx/,
  ],
  [
    "a graph of an opset that is not known here",
    (folder) => mismadeModel(folder, { "denoise.fp32.onnx": opset99 }),
    /denoise\.fp32\.onnx.*opset/i,
  ],
];

for (const [i, [name, make, says]] of MODELS.entries())
  test(`${name}: one line, exit 1, nothing left`, async () => {
    checkRefusal(await ended(["--model", await make(join(root, `model-${i}`))]), says);
  });

test("a port in use: one line, exit 1, no worker left", async () => {
  const blocker = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => blocker.once("listening", resolve));
  const { port } = blocker.address() as AddressInfo;
  const outcome = await ended(["--model", TINY_GUIDED, "--workers", "2", "--port", String(port)]);
  blocker.close();
  checkRefusal(outcome, /cannot listen on 127\.0\.0\.1:\d+: the port is in use/);
});

test("a low limit on open files: one line, exit 1", { skip: noLimits }, async () => {
  checkRefusal(await ended(["--model", TINY_GUIDED], ["--nofile=100"]), /open files is 100.*ulimit -n/);
});

test("the server runs on a full disk: it writes no file", { skip: noLimits }, async () => {
  const child = start(["--model", TINY_GUIDED, "--log-level", "warn"], ["--fsize=0"]);
  child.stderr.pipe(process.stderr);
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const { origin } = await untilReady(child);
  const response = await post(`${origin}/generate`, { prompt: "", length: 8, steps: 2, seed: 1 });
  assert.equal(response.status, 200);
  child.kill("SIGTERM");
  assert.equal(await exit, 0);
});

test("the server serves and stops if the log cannot be written", {
  skip: !existsSync("/dev/full"),
}, async () => {
  const port = await freePort();
  const full = openSync("/dev/full", "w");
  const args = ["serve", "--port", String(port), "--device", "cpu", "--model", TINY_GUIDED];
  const child = spawn(process.execPath, [...ENTRY, ...args], {
    cwd: PACKAGE_ROOT,
    stdio: ["ignore", full, "inherit"],
  });
  closeSync(full);
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const ready = () => answers(`http://127.0.0.1:${port}/readyz`);
  while (child.exitCode === null && !(await ready())) await sleep(50);
  child.kill("SIGTERM");
  assert.equal(await exit, 0);
});
