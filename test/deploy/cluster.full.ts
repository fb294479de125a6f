/**
 * The manifests on a real Kubernetes (deploy/kubernetes/test): a replica answers through its service, and a
 * rolling restart, a killed worker and a killed pod under load lose nothing.
 */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DidiClient } from "../../src/client/index.ts";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { createKey } from "../../src/server/access/keys.ts";
import { VERSION } from "../../src/server/openapi.ts";
import { programPath, runProgram, skipWithout } from "./support.ts";

const CLUSTER = join(PACKAGE_ROOT, "deploy", "kubernetes", "test", "cluster.sh");
const HOME = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve", "cluster");
const KUBECTL = join(HOME, "bin", "kubectl");
const IMAGE = `localhost/didi-serve:${VERSION}`;
const NAME = "deployment/didi-serve-cpu";
/** Clients of the load; half of them stream. */
const CLIENTS = 4;

const skip =
  skipWithout("podman", "runc") ||
  (process.getuid?.() !== 0 && "a node needs root") ||
  (!existsSync(KUBECTL) && "without Kubernetes (deploy/kubernetes/test/cluster.sh build)");
const cluster = (...args: string[]) => runProgram(CLUSTER, args, PACKAGE_ROOT);
const kubectl = (...args: string[]) =>
  runProgram(KUBECTL, ["--kubeconfig", join(HOME, "run", "kubeconfig"), ...args], PACKAGE_ROOT);
const folder = await mkdtemp(join(tmpdir(), "didi-cluster-"));
const key = createKey("load", {});
let client: DidiClient;

before(
  async () => {
    if (skip) return;
    await cluster("down");
    await cluster("up");
    const found = await runProgram(programPath("podman"), ["images", "--quiet", IMAGE], PACKAGE_ROOT);
    if (found.trim() === "") await runProgram(join(PACKAGE_ROOT, "deploy/docker/build.sh"), [], PACKAGE_ROOT);
    await cluster("load", IMAGE);
    const keys = join(folder, "keys.jsonl");
    await writeFile(keys, `${JSON.stringify(key.record)}\n`);
    await kubectl("create", "secret", "generic", "didi-serve-keys", `--from-file=${keys}`);
    await kubectl("apply", "-k", "deploy/kubernetes/small");
  },
  { timeout: 280_000 },
);
after(async () => {
  if (!skip) await cluster("down");
  await rm(folder, { recursive: true });
});

const rolledOut = () => kubectl("rollout", "status", NAME, "--timeout=120s");

/** Kill the workers inside the pods. Return their number. */
function killWorkers(): number {
  const read = (pid: string, file: string) => {
    try {
      return readFileSync(join("/proc", pid, file), "utf8");
    } catch {
      return "";
    }
  };
  const workers = readdirSync("/proc").filter(
    (pid) => read(pid, "cmdline").includes("/worker/worker.js") && read(pid, "cgroup").includes("kubepods"),
  );
  for (const pid of workers) process.kill(Number(pid), "SIGKILL");
  return workers.length;
}

/** Return the request of a seed: about half a second of work. */
const request = (seed: number) => ({ prompt: "Once upon a time", length: 64, steps: 32, seed });

/** Return the tokens of a seed, by POST or from the events of a stream. */
async function tokensOf(seed: number, streamed: boolean): Promise<string> {
  if (!streamed) return (await client.generate(request(seed))).samples[0]!.tokens.join();
  for await (const event of client.stream(request(seed)))
    if (event.type === "done") return event.samples[0]!.tokens.join();
  throw new Error("the stream ended without a done event");
}

test("a replica of deploy/kubernetes/small answers through its service", { skip }, async () => {
  await rolledOut();
  const address = await kubectl("get", "service", "didi-serve-cpu", "-o", "jsonpath={.spec.clusterIP}");
  client = new DidiClient(`http://${address}`, {
    apiKey: key.key,
    retry: { retries: 30, firstMs: 100, longestMs: 1000 },
  });
  assert.equal((await tokensOf(1, false)).split(",").length, 64);
  const refused = await fetch(`http://${address}/generate`, { method: "POST", body: "{}" });
  assert.equal(refused.status, 401);
});

test("under load a rolling restart, a killed worker and a killed pod lose no request", { skip }, async () => {
  const seeds = Array.from({ length: 8 }, (_, seed) => seed);
  const expected: string[] = [];
  for (const seed of seeds) expected.push(await tokensOf(seed, false));
  let over = false;
  let answers = 0;
  const load = Promise.all(
    Array.from({ length: CLIENTS }, async (_, one) => {
      for (let round = 0; !over; round++) {
        const seed = (one + round) % seeds.length;
        assert.equal(await tokensOf(seed, one % 2 === 1), expected[seed], `seed ${seed}`);
        answers++;
      }
    }),
  );
  const disturb = async () => {
    try {
      await kubectl("rollout", "restart", NAME);
      await rolledOut();
      assert.ok(killWorkers() > 0);
      await sleep(3000);
      await kubectl(
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=didi-serve",
        "--force",
        "--grace-period=0",
      );
      await rolledOut();
    } finally {
      over = true;
    }
  };
  await Promise.all([load, disturb()]);
  assert.ok(answers > CLIENTS, `${answers} answers`);
});

test("deleting the manifests leaves nothing", { skip }, async () => {
  await kubectl("delete", "-k", "deploy/kubernetes/small", "--wait", "--timeout=100s");
  assert.match(await kubectl("get", "deployments,pods,services,hpa,pdb"), /service\/kubernetes/);
  assert.doesNotMatch(await kubectl("get", "deployments,services,pdb"), /didi-serve/);
});
