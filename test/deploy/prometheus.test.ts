/** The files for Prometheus and Grafana, checked by Debian's promtool against a real scrape. */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { load } from "js-yaml";
import { ModelRegistry } from "../../src/engine/models/registry.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { createMetrics } from "../../src/server/telemetry/metrics.ts";
import { listen } from "../server/support.ts";
import { startEngine, TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { scratch } from "../support/scratch.ts";
import { programPath, runProgram, skipWithout } from "./support.ts";

const PROMETHEUS = join(PACKAGE_ROOT, "deploy", "prometheus");
const skip = skipWithout("promtool");
const promtool = (args: string[], input?: string) =>
  runProgram(programPath("promtool"), args, PROMETHEUS, input);

const rules = load(await readFile(join(PROMETHEUS, "didi-serve.rules.yml"), "utf8")) as {
  groups: { rules: { expr: string; alert: string }[] }[];
};
const dashboard: { panels: { title: string; targets?: { expr: string }[] }[] } = JSON.parse(
  await readFile(join(PACKAGE_ROOT, "deploy", "grafana", "didi-serve.json"), "utf8"),
);
const alerts = rules.groups.flatMap((group) => group.rules);
/** Return the queries of the dashboard with Grafana's variables replaced. */
const queries = dashboard.panels.flatMap(({ targets = [] }) =>
  targets.map(({ expr }) => expr.replaceAll("$instance", ".*").replaceAll("$__rate_interval", "5m")),
);

const engine = await startEngine({ cache: { maxBytes: 1e6, ttlMs: 60_000 } }, TINY_GUIDED);
const { origin } = await listen(engine, { metrics: createMetrics(new ModelRegistry(engine), () => true) });
const generate = (body: object) =>
  post(`${origin}/generate`, { prompt: "Once", length: 24, steps: 4, ...body });
// Every graph, a cache hit and a miss, and a refused request.
for (const guidance of [{ mode: "none" }, { mode: "rgas", rerank_ratio: 0.5 }])
  for (let times = 0; times < 2; times++) assert.equal((await generate({ seed: 1, guidance })).status, 200);
assert.equal((await generate({ steps: -1 })).status, 400);
const scrape = await (await fetch(`${origin}/metrics`)).text();

/** Names of metrics in a query: what stands before `{`, `[` or the end, and is no function or label. */
function metricsOf(expr: string): string[] {
  return expr.match(/\b(?:didi|nodejs|process)_\w+|\bup\b/g) ?? [];
}

test("promtool reports nothing about a real scrape", { skip }, async () => {
  assert.equal(await promtool(["check", "metrics"], scrape), "");
});

test("promtool accepts the rules and the configuration, and the rules' unit tests pass", {
  skip,
}, async () => {
  assert.match(await promtool(["check", "rules", "didi-serve.rules.yml"]), /SUCCESS: \d\d rules found/);
  assert.match(await promtool(["test", "rules", "didi-serve.test.yml"]), /SUCCESS/);
  assert.match(await promtool(["check", "config", "prometheus.yml"]), /SUCCESS/);
});

test("a wrong rule fails its unit test", { skip }, async () => {
  const folder = scratch("rules");
  for (const name of ["didi-serve.rules.yml", "didi-serve.test.yml"]) {
    const text = await readFile(join(PROMETHEUS, name), "utf8");
    await writeFile(
      join(folder, name),
      text.replace("didi_queue_age_seconds > 10", "didi_queue_age_seconds > 90"),
    );
  }
  const failing = runProgram(programPath("promtool"), ["test", "rules", "didi-serve.test.yml"], folder);
  await assert.rejects(failing, /DidiQueueOld/);
});

test("every alert has a unit test", async () => {
  const tests = await readFile(join(PROMETHEUS, "didi-serve.test.yml"), "utf8");
  for (const { alert } of alerts)
    assert.match(tests, new RegExp(`alertname: ${alert}\\n +exp_alerts:\\n`), `${alert} is never raised`);
});

test("every query of the dashboard is valid", { skip }, async () => {
  const folder = scratch("dashboard");
  const file = join(folder, "queries.yml");
  const records = queries.map((expr, i) => ({ record: `query:${i}`, expr }));
  await writeFile(file, JSON.stringify({ groups: [{ name: "dashboard", rules: records }] }));
  assert.match(await promtool(["check", "rules", file]), /SUCCESS/);
});

test("every metric of dashboard and rules is in the scrape, and every metric of the server is shown", () => {
  const types = new Map(
    [...scrape.matchAll(/^# TYPE (\w+) (\w+)$/gm)].map(([, name, type]) => [name!, type!]),
  );
  const base = (name: string) => (types.has(name) ? name : name.replace(/_(bucket|sum|count)$/, ""));
  const used = [...queries, ...alerts.map(({ expr }) => expr)].flatMap(metricsOf);
  assert.ok(used.length > 60);
  for (const name of used) {
    if (name === "up") continue; // Prometheus's own
    assert.ok(types.has(base(name)), `${name} is not in the scrape`);
    assert.equal(
      base(name) !== name,
      types.get(base(name)) === "histogram",
      `${name} is read as it is not kept`,
    );
  }
  const shown = new Set(queries.flatMap(metricsOf).map(base));
  const hidden = [...types.keys()].filter((name) => name.startsWith("didi_") && !shown.has(name));
  assert.deepEqual(hidden, []);
});

test("the scrape counts the requests of the test", () => {
  const value = (series: string) =>
    Number(
      scrape
        .split("\n")
        .find((line) => line.startsWith(`${series} `))
        ?.slice(series.length + 1),
    );
  assert.equal(value('didi_cache_lookups_total{tier="memory",result="hit"}'), 2);
  assert.equal(value('didi_answers_total{cache="hit"}'), 2);
  assert.equal(value('didi_rejections_total{reason="invalid-request"}'), 1);
  assert.equal(value('didi_http_requests_total{route="/generate",method="POST",status="200"}'), 4);
  for (const graph of ["denoise", "tilt", "score"])
    assert.ok(value(`didi_batch_seconds_count{graph="${graph}"}`) > 0, graph);
  assert.ok(value('didi_passes_total{kind="gradient"}') > 0);
  assert.ok(value("didi_step_entropy_nats_count") >= 4);
  assert.equal(value("didi_sample_repetition_ratio_count"), value('didi_answers_total{cache="miss"}'));
  assert.equal(value("didi_queue_age_seconds"), 0);
  assert.equal(value("didi_ready"), 1);
});
