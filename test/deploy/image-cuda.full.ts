/**
 * The image for CUDA on a machine without a driver. Building it takes minutes and 10 GB: it must be there.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { VERSION } from "../../src/server/openapi.ts";
import { post } from "../support/http.ts";
import { findProgram, freePort } from "../support/programs.ts";

const IMAGE = `localhost/didi-serve:${VERSION}-cuda`;
const podman = (...args: string[]) => spawnSync(findProgram("podman")!, args, { encoding: "utf8" });
const skip =
  (!findProgram("podman") || podman("image", "exists", IMAGE).status !== 0) &&
  `without ${IMAGE} (deploy/docker/build.sh cuda)`;
/** As deploy/kubernetes runs it. */
const SHUT = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host"];
/** Limits that root can set without the right to raise them. */
const LIMITS = ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"];
const run = (...args: string[]) => podman("run", ...SHUT, ...LIMITS, "--env=DIDI_INSECURE=1", ...args);

test("without a driver it ends with one line and exit code 1", { skip }, async () => {
  const { status, stdout, stderr } = run("--rm", `--env=DIDI_PORT=${await freePort()}`, IMAGE);
  assert.equal(status, 1, stderr);
  assert.equal(stdout, "");
  const lines = stderr.split("\n").filter((line) => line.startsWith("didi-serve: "));
  assert.equal(lines.length, 2);
  assert.match(lines[1]!, /^didi-serve: there is no NVIDIA driver .* CUDA \d+\.\d+, .*--device cpu$/);
});

test("with DIDI_DEVICE=auto it says why, and serves on the CPU", { skip }, async () => {
  const port = await freePort();
  const container = `didi-cuda-${process.pid}`;
  run("--detach", `--name=${container}`, "--env=DIDI_DEVICE=auto", `--env=DIDI_PORT=${port}`, IMAGE);
  try {
    const origin = `http://127.0.0.1:${port}`;
    const late = performance.now() + 60_000;
    while (!(await fetch(`${origin}/readyz`).catch(() => undefined))?.ok) {
      if (performance.now() > late) assert.fail(podman("logs", container).stderr);
      await sleep(100);
    }
    const answer = await post(`${origin}/generate`, { prompt: "Once", length: 16, steps: 4 });
    assert.equal(answer.status, 200);
    const { stdout, stderr } = podman("logs", container);
    assert.match(stdout + stderr, /running on the CPU: there is no NVIDIA driver/);
  } finally {
    podman("rm", "--force", "--time=0", container);
  }
});
