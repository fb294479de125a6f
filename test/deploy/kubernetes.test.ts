/** The manifests against the published schemas, and against the flags and routes of the server. */

import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { load, loadAll } from "js-yaml";
import { SERVE_OPTIONS } from "../../src/cli/options.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { CONTRACT, VERSION } from "../../src/server/openapi.ts";
import { scratch } from "../support/scratch.ts";
import { programPath, runProgram, skipWithout } from "./support.ts";

const KUBERNETES = join(PACKAGE_ROOT, "deploy", "kubernetes");
const KINDS = ["cpu", "cuda"];
/** Most seconds that the server needs after --grace (docs/operate/running.md). */
const AFTER_GRACE = 5;

const folder = scratch("kubernetes");

const read = (...path: string[]) => readFile(join(KUBERNETES, ...path), "utf8");

interface Probe {
  httpGet: { path: string; port: string };
}

interface Container {
  args?: string[];
  env: { name: string }[];
  ports: { name: string; containerPort: number }[];
  startupProbe: Probe;
  livenessProbe: Probe;
  readinessProbe: Probe;
  lifecycle: { preStop: { exec: { command: string[] } } };
  resources: { limits: Record<string, string> };
}

interface Deployment {
  kind: "Deployment";
  metadata: { name: string };
  spec: {
    selector: { matchLabels: object };
    template: {
      metadata: { labels: object };
      spec: {
        containers: [Container];
        terminationGracePeriodSeconds: number;
        nodeSelector?: Record<string, string>;
      };
    };
  };
}

const parse = (text: string): ReturnType<typeof JSON.parse> => load(text);
const base: Deployment = parse(await read("base", "deployment.yaml"));
const { spec: pod } = base.spec.template;
const [server] = pod.containers;

async function validate(...files: string[]): Promise<string> {
  return runProgram(programPath("kubernetes-validate"), ["--strict", ...files], KUBERNETES);
}

const noSchemas = skipWithout("kubernetes-validate");

test("every manifest fits the published schemas", { skip: noSchemas }, async () => {
  const names = (await readdir(join(KUBERNETES, "base"))).filter((name) => name !== "kustomization.yaml");
  const said = await validate(...names.map((name) => join("base", name)));
  assert.equal(said.match(/passed for resource/g)?.length, names.length);
});

test("a wrong manifest does not fit the schemas", { skip: noSchemas }, async () => {
  const file = join(folder, "deployment.yaml");
  const text = await read("base", "deployment.yaml");
  await writeFile(file, text.replace("periodSeconds: 2", "periodSecond: 2"));
  await assert.rejects(validate(file), /periodSecond/);
});

for (const kind of KINDS)
  test(`kustomize builds those of ${kind}, and they fit`, {
    skip: noSchemas || skipWithout("kubectl"),
  }, async () => {
    const built = await runProgram(programPath("kubectl"), ["kustomize", kind], KUBERNETES);
    const file = join(folder, `${kind}.yaml`);
    await writeFile(file, built);
    const said = await validate(file);
    for (const resource of [
      "service",
      "deployment",
      "poddisruptionbudget",
      "horizontalpodautoscaler",
      "networkpolicy",
    ])
      assert.match(said, new RegExp(`passed for resource ${resource}/didi-serve-${kind} `));
    const objects = loadAll(built) as Deployment[];
    const deployment = objects.find((object) => object.kind === "Deployment")!;
    const { metadata, spec } = deployment.spec.template;
    assert.deepEqual(deployment.spec.selector.matchLabels, metadata.labels);
    const gpus = spec.containers[0].resources.limits["nvidia.com/gpu"];
    assert.equal(gpus, kind === "cuda" ? "1" : undefined);
    assert.equal(spec.nodeSelector?.["nvidia.com/gpu.present"], kind === "cuda" ? "true" : undefined);
    // A label of the device among the peers of the policy would shut Redis and DNS out.
    const policy = objects.find(({ kind }) => (kind as string) === "NetworkPolicy");
    assert.doesNotMatch(JSON.stringify((policy!.spec as { egress?: object }).egress), /didi-serve\/device/);
    const scaled = built.match(/scaleTargetRef:\n.*\n.*\n +name: (\S+)/)?.[1];
    assert.equal(scaled, deployment.metadata.name);
  });

test("kustomize builds one replica without an autoscaler for a small node", {
  skip: noSchemas || skipWithout("kubectl"),
}, async () => {
  const built = await runProgram(programPath("kubectl"), ["kustomize", "small"], KUBERNETES);
  const file = join(folder, "small.yaml");
  await writeFile(file, built);
  assert.match(await validate(file), /passed for resource deployment\/didi-serve-cpu /);
  assert.match(built, /replicas: 1\n/);
  assert.doesNotMatch(built, /HorizontalPodAutoscaler/);
});

test("the network policy selects the pods and allows only their port, Redis and DNS", async () => {
  const { spec } = parse(await read("base", "network-policy.yaml"));
  assert.deepEqual(spec.podSelector.matchLabels, base.spec.selector.matchLabels);
  assert.deepEqual(spec.policyTypes.toSorted(), ["Egress", "Ingress"]);
  for (const rule of spec.ingress) {
    // A rule without `from` would allow every source.
    assert.ok(rule.from.length > 0);
    assert.deepEqual(
      rule.ports.map(({ port }: { port: string }) => port),
      [server.ports[0]!.name],
    );
  }
  const out = spec.egress.flatMap((rule: { to: object[]; ports: { port: number }[] }) => {
    assert.ok(rule.to.length > 0);
    return rule.ports.map(({ port }) => port);
  });
  assert.deepEqual([...new Set(out)].toSorted(), [53, 6379]);
  const { resources } = parse(await read("base", "kustomization.yaml"));
  assert.ok(resources.includes("network-policy.yaml"));
});

test("a pod has as much time to stop as the server needs", () => {
  const grace = Number(server.args!.find((arg) => arg.startsWith("--grace="))?.slice("--grace=".length));
  const [sleep, seconds] = server.lifecycle.preStop.exec.command;
  assert.equal(sleep, "sleep");
  assert.ok(pod.terminationGracePeriodSeconds >= Number(seconds) + grace + AFTER_GRACE);
});

test("probes use existing routes", () => {
  for (const probe of [server.startupProbe, server.livenessProbe, server.readinessProbe]) {
    assert.ok(probe.httpGet.path in CONTRACT.paths, probe.httpGet.path);
    assert.equal(probe.httpGet.port, server.ports[0]!.name);
  }
  assert.equal(server.livenessProbe.httpGet.path, "/healthz");
  assert.equal(server.readinessProbe.httpGet.path, "/readyz");
});

test("flags and variables exist, and the image has the server's version", async () => {
  const flags = SERVE_OPTIONS.map(({ long }) => long);
  for (const arg of server.args!.slice(1)) assert.ok(flags.includes(arg.split("=")[0]), arg);
  const variables = SERVE_OPTIONS.map(({ envVar }) => envVar);
  for (const kind of KINDS) {
    const patch: Deployment = parse(await read(kind, "deployment.yaml"));
    for (const { name } of [...server.env, ...patch.spec.template.spec.containers[0].env])
      assert.ok(variables.includes(name), name);
    const { images } = parse(await read(kind, "kustomization.yaml"));
    assert.equal(images[0].newTag.replace("-cuda", ""), VERSION);
  }
});

test("the adapter provides the autoscaler's metrics", async () => {
  const autoscaler = parse(await read("base", "autoscaler.yaml"));
  const { rules } = parse(await read("prometheus-adapter.yaml"));
  const made = (rules.custom as { seriesQuery: string; name?: { as: string } }[]).map(
    ({ seriesQuery, name }) => name?.as ?? seriesQuery.split("{")[0],
  );
  const asked = (autoscaler.spec.metrics as { pods: { metric: { name: string } } }[]).map(
    ({ pods }) => pods.metric.name,
  );
  assert.deepEqual(asked, made);
});
