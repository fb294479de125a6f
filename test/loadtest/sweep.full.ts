/** The load test against a real server with a small model. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { readResults } from "../../loadtest/report/results.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { serve } from "../server/support.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { scratch } from "../support/scratch.ts";

const out = scratch("loadtest");
const { origin } = await serve({}, TINY_GUIDED);

/** Return flags for the test's server that write results of that name. */
const to = (name: string) => ["--url", origin, "--out", out, "--name", name];

/** Run the load test; `onProgress` gets its standard error. */
async function loadtest(
  args: string[],
  onProgress: (text: string, interrupt: () => void) => void = () => {},
) {
  const child = spawn(process.execPath, ["--import", "tsx", "loadtest/main.ts", ...args], {
    cwd: PACKAGE_ROOT,
  });
  let [output, errors] = ["", ""];
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
    onProgress(errors, () => child.kill("SIGINT"));
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, output, errors };
}

test("a sweep over every axis gives results without errors", async () => {
  const args = [...to("every"), "--time", "30", "--repeats", "2", "--p99", "10000"];
  args.push("--steps", "2,4", "--concurrency", "1,3", "--length", "8", "--guidance", "none,rgas");
  args.push("--transport", "post,sse,ws", "--rates", "5,10", "--max-requests", "3000");
  const { code, output, errors } = await loadtest(args);
  assert.equal(code, 0, errors);
  assert.match(errors, /connecting to http/);
  assert.doesNotMatch(errors, /starting the server/);
  const results = readResults(join(out, "every"));
  assert.match(output, /every\/report\.md/);
  assert.equal(results.name, "every");
  assert.equal(results.settings.repeats, 2);
  // On a slow machine cells are left out, with a message.
  const closed = results.cells.filter(({ load }) => load.kind === "closed");
  assert.ok(closed.length === 24 || results.left_out > 0, `${closed.length} cells`);
  assert.ok(results.cells.length > 0);
  for (const { id, summary, measurements, transport, load } of results.cells) {
    assert.deepEqual(summary.errors, {}, id);
    assert.ok(measurements.length > 0 && summary.times_ms.latency!.count > 0, id);
    assert.equal(summary.times_ms.first_step !== undefined, transport !== "post", id);
    assert.ok(load.kind === "open" || summary.figures.batch_rows!.lowest >= 1, id);
    assert.ok(
      measurements.every((m) => m.tokens === 8 * m.requests),
      id,
    );
  }
  const guided = results.cells.find(({ shapes }) => shapes[0]!.guidance === "rgas");
  assert.ok(!guided || guided.summary.figures.discriminator_passes_per_second!.median > 0);
  const requests = results.cells.flatMap((cell) => cell.measurements.map((m) => m.requests));
  assert.ok(requests.reduce((sum, count) => sum + count, 0) <= 3000);
});

test("Ctrl-C writes the results so far and exits with 130", async () => {
  let interrupted = false;
  const args = [...to("stopped"), "--time", "600", "--steps", "4", "--length", "8"];
  const { code, errors } = await loadtest([...args, "--no-open"], (text, interrupt) => {
    if (interrupted || !/ left {2}server \|/.test(text)) return;
    interrupted = true;
    interrupt();
  });
  assert.equal(code, 130, errors);
  assert.equal(readResults(join(out, "stopped")).complete, false);
});

test("existing results are not replaced without --overwrite", async () => {
  const names = readdirSync(out);
  assert.ok(names.includes("every"));
  const { code, errors } = await loadtest(["--url", origin, "--out", out, "--name", "every"]);
  assert.equal(code, 2);
  assert.match(errors, /--overwrite/);
});

test("a wrong command line gives one line and exit code 2", async () => {
  for (const [args, said] of [
    [["--url", "http://192.0.2.1"], /loadtest: .*--i-know 192\.0\.2\.1/],
    [["--url", origin, "--length", "100000"], /context/],
    [["--steps", "0"], /whole number from 1 to 1024/],
    [["--transport", "carrier-pigeon"], /post, sse, ws/],
    [["--peers", "nobody"], /bare, reference/],
  ] as const) {
    const { code, errors } = await loadtest([...args, "--out", out]);
    assert.equal(code, 2, `${args.join(" ")}: ${errors}`);
    assert.match(errors, said);
  }
});

test("compare and gate read results from their folders", async () => {
  const folder = join(out, "every");
  const compared = await loadtest(["compare", folder, folder]);
  assert.equal(compared.code, 0, compared.errors);
  assert.match(compared.output, /tokens\/s .* 1\.00 .*within noise/);
  const gated = await loadtest(["gate", folder, join(folder, "results.json")]);
  assert.deepEqual([gated.code, gated.output.trim().split("\n").at(-1)], [0, "passed"]);
  const missing = await loadtest(["compare", folder, join(out, "none")]);
  assert.equal(missing.code, 2);
  assert.match(missing.errors, /^loadtest: .*none: ENOENT/);
});
