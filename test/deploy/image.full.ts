/**
 * The image for CPUs, built as `deploy/docker/build.sh` builds it and run as deploy/kubernetes runs it:
 * another user than root, no capabilities, a root file system that is read only.
 */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { VERSION } from "../../src/server/openapi.ts";
import { post } from "../support/http.ts";
import { freePort } from "../support/programs.ts";
import { programPath, runProgram, skipWithout } from "./support.ts";

const IMAGE = `localhost/didi-serve:${VERSION}`;
const MOST_BYTES = 450e6;
/** A request that takes at least a second. */
const LONG = { prompt: "Once", length: 128, steps: 128, seed: 1 };
const READY_MS = 60_000;

const skip =
  skipWithout("podman", "runc", "mmdebstrap") ||
  (process.getuid?.() !== 0 && !process.env.DIDI_REQUIRE_DEPLOY && "building an image needs root");
const podman = (...args: string[]) => runProgram(programPath("podman"), args, PACKAGE_ROOT);
/** Limits that root can set without the right to raise them. */
const LIMITS = ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"];

interface Image {
  Size: number;
  Config: { User: string; Entrypoint: string[]; Healthcheck?: { Test: string[] } };
}

/** Packages of a lock file, by their folder. */
interface Lock {
  packages: Record<string, { version: string; dev?: boolean; devOptional?: boolean }>;
}

let image: Image;
const container = `didi-image-${process.pid}`;
let origin = "";

before(async () => {
  if (skip) return;
  await podman("rmi", "--force", "--ignore", IMAGE);
  await runProgram(join(PACKAGE_ROOT, "deploy/docker/build.sh"), ["cpu", "--layers=false"], PACKAGE_ROOT);
  [image] = JSON.parse(await podman("image", "inspect", IMAGE)) as [Image];
  const port = await freePort();
  origin = `http://127.0.0.1:${port}`;
  const shut = [
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
  ];
  const settings = ["--env=DIDI_INSECURE=1", `--env=DIDI_PORT=${port}`];
  const name = ["--name", container];
  await podman("run", "--detach", ...name, "--network=host", ...LIMITS, ...shut, ...settings, IMAGE);
});
after(async () => {
  if (!skip) await podman("rm", "--force", "--ignore", "--time=0", container);
});

const ask = (body: object) => post(`${origin}/generate`, body);

/** Return the result of the image's health check. */
function health(): Promise<number | null> {
  return new Promise((resolve) => {
    const child = execFile(programPath("podman"), ["healthcheck", "run", container], () =>
      resolve(child.exitCode),
    );
  });
}

async function untilReady(): Promise<void> {
  const late = performance.now() + READY_MS;
  while (!(await fetch(`${origin}/readyz`).catch(() => undefined))?.ok) {
    if (performance.now() > late) assert.fail(`it is not ready: ${await podman("logs", container)}`);
    await sleep(100);
  }
}

test("the health check fails until the server is ready, and then passes", { skip }, async () => {
  assert.equal(await health(), 1);
  await untilReady();
  assert.equal(await health(), 0);
});

test("the image is small, and its user is not root", { skip }, () => {
  assert.ok(image.Size < MOST_BYTES, `${image.Size} bytes`);
  assert.equal(image.Config.User, "1000:1000");
});

test("the image has ONNX Runtime for its platform, the default model, and only packages of the lock file", {
  skip,
}, async () => {
  const list = async (folder: string) => (await podman("exec", container, "ls", folder)).trim().split("\n");
  const binaries = "node_modules/onnxruntime-node/bin/napi-v6";
  assert.deepEqual(await list(binaries), ["linux"]);
  assert.deepEqual(await list(`${binaries}/linux`), [process.arch]);
  assert.deepEqual(await list("models"), ["model.schema.json", "stories-didi"]);
  assert.doesNotMatch((await list("models/stories-didi")).join(), /\.(csv|svg)/);
  const inside: Lock = JSON.parse(await podman("exec", container, "cat", "node_modules/.package-lock.json"));
  const lock: Lock = JSON.parse(await readFile(join(PACKAGE_ROOT, "package-lock.json"), "utf8"));
  const wanted = Object.entries(lock.packages).filter(([name, { dev }]) => name !== "" && !dev);
  const versions = (packages: [string, { version: string }][]) =>
    packages.map(([name, { version }]) => `${name} ${version}`).toSorted();
  assert.deepEqual(versions(Object.entries(inside.packages)), versions(wanted));
  assert.ok("node_modules/ioredis" in inside.packages);
});

test("the image is read-only", { skip }, async () => {
  assert.equal((await podman("exec", container, "id", "-u")).trim(), "1000");
  for (const folder of ["/app", "/tmp", "/home"])
    await assert.rejects(podman("exec", container, "touch", join(folder, "file")), /Read-only|denied/);
});

test("the server in the image gives the same tokens for the same seed", { skip }, async () => {
  const tokens = async () => {
    const answer = await ask({ prompt: "Once upon a time", length: 32, steps: 8, seed: 7 });
    assert.equal(answer.status, 200);
    const { samples } = (await answer.json()) as { samples: [{ tokens: number[] }] };
    return samples[0].tokens;
  };
  const first = await tokens();
  assert.equal(first.length, 32);
  assert.deepEqual(await tokens(), first);
  assert.equal((await fetch(origin)).status, 200);
});

test("SIGTERM lets a running request finish, and the server ends with 0", { skip }, async () => {
  const answer = ask(LONG);
  await sleep(300);
  await podman("kill", "--signal=TERM", container);
  assert.equal((await answer).status, 200);
  assert.equal((await podman("wait", container)).trim(), "0");
});
