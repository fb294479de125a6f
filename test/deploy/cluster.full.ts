/** The short form of `npm run cluster`: a first answer, a rolling restart under load, and nothing left. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { reasonNotToRun } from "../../loadtest/cluster/kubernetes.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { runProgram } from "./support.ts";

test("the manifests run, roll under load and go on a real Kubernetes", {
  skip: reasonNotToRun(),
  timeout: 590_000,
}, async () => {
  const args = ["--import", "tsx", "loadtest/cluster/main.ts", "--short"];
  const report = await runProgram(process.execPath, args, PACKAGE_ROOT);
  // The program fails if a claim does.
  assert.match(report, /\| holds \| through the Service: every request was answered once/);
});
