/**
 * `npm run cluster`: the manifests on a real Kubernetes, from an empty cluster to the autoscaler, with a
 * report.
 */

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { integer } from "../../src/cli/parsers.ts";
import { StartupError } from "../../src/errors.ts";
import { VERSION } from "../../src/server/openapi.ts";
import { blocksOf } from "../../test/docs/blocks.ts";
import { until } from "../../test/support/until.ts";
import { withoutFaults } from "../chaos/traffic.ts";
import { flag, script } from "../cli/script.ts";
import { publish } from "../report/checks.ts";
import { machine } from "../servers/machine.ts";
import { median } from "../traffic/statistics.ts";
import { checksOf, watchAutoscaler } from "./autoscale.ts";
import { MixedLoad } from "./clients.ts";
import { ALL, type Disturbance, ROLL } from "./disturb.ts";
import { Ingress } from "./ingress.ts";
import {
  api,
  cluster,
  DEPLOYMENT,
  down,
  kubectl,
  NAME,
  readyPods,
  reasonNotToRun,
  rolledOut,
  scale,
  shell,
  sizeOf,
  up,
} from "./kubernetes.ts";
import { checkLimits, KEYS } from "./limits.ts";
import { drawAutoscaling } from "./picture.ts";
import { checksOfLoad, markdownOf, type Run } from "./report.ts";
import { measureThroughput, SHAPE } from "./throughput.ts";
import { checkWalls } from "./walls.ts";

interface Flags {
  short?: boolean;
  build?: boolean;
  seconds: number;
  seed: number;
  out?: string;
}

const PAGE = "docs/operate/kubernetes.md";
const PICTURE = "cluster.svg";
const started = performance.now();
const elapsed = () => (performance.now() - started) / 1000;

/** Do a part and note how long it took. */
async function timed<T>(run: Run, part: string, work: () => Promise<T>): Promise<T> {
  console.error(`${elapsed().toFixed(0)} s: ${part}`);
  const before = elapsed();
  const result = await work();
  run.times[part] = elapsed() - before;
  return result;
}

/** Return the address of the service. */
async function service(): Promise<string> {
  type Service = { spec: { clusterIP: string } };
  const { spec } = await api<Service>(`/api/v1/namespaces/default/services/${NAME}`);
  return `http://${spec.clusterIP}`;
}

/** Strike while clients ask through every way into the cluster, and add what they saw to the run. */
async function underLoad(
  run: Run,
  ways: Record<string, string>,
  disturbances: readonly Disturbance[],
  seed: number,
): Promise<void> {
  const key = KEYS.load.key;
  const expected = await timed(run, "every request once, in peace", async () =>
    withoutFaults(await service(), { authorization: `Bearer ${key}` }),
  );
  for (const [way, origin] of Object.entries(ways))
    run.loads[way] = new MixedLoad(origin, key, expected, seed);
  const loads = Object.values(run.loads);
  const sum = (of: (load: MixedLoad) => number) => loads.reduce((total, load) => total + of(load), 0);
  let over = false;
  const asking = Promise.all(loads.map((load) => load.run(() => over)));
  // One that rejects before the end is seen there.
  asking.catch(() => {});
  try {
    for (const { name, strike } of disturbances) {
      console.error(`${elapsed().toFixed(0)} s: ${name}`);
      const before = {
        at: elapsed(),
        answers: sum(({ answers }) => answers),
        retried: sum((l) => l.retried),
      };
      const marks = loads.map(({ answers }) => answers);
      const seen = await strike();
      run.struck.push({
        ...{ name, seen, seconds: elapsed() - before.at },
        answers: sum(({ answers }) => answers) - before.answers,
        retried: sum(({ retried }) => retried) - before.retried,
        slowest: Math.max(0, ...loads.flatMap(({ latencies }, i) => latencies.slice(marks[i]))),
      });
    }
  } finally {
    over = true;
  }
  await asking;
  run.checks.push(...Object.entries(run.loads).flatMap(([way, load]) => checksOfLoad(way, load)));
}

/**
 * Run the commands of the page: from an empty cluster to a first answer. The image is built unless there is
 * one of this version.
 */
async function firstAnswer(run: Run, build: boolean): Promise<void> {
  const image = await shell(`podman images --quiet localhost/didi-serve:${VERSION}`);
  const commands = blocksOf(PAGE)
    .map(({ text }) => text)
    .filter((text) => build || image.trim() === "" || text.trim() !== "deploy/docker/build.sh");
  const said = await timed(run, `${PAGE}: from an empty cluster to a first answer`, () =>
    shell(commands.join("\n")),
  );
  const answer = said.split("\n").find((line) => line.startsWith('{"id"'));
  run.checks.push({
    claim: `the commands of ${PAGE} lead from an empty cluster to an answer`,
    holds: answer !== undefined,
    seen: answer ? `${answer.length} bytes of JSON` : said.slice(-200),
  });
}

/** Make the secret of the keys. */
async function createSecrets(folder: string): Promise<void> {
  const file = join(folder, "keys.jsonl");
  await writeFile(
    file,
    Object.values(KEYS)
      .map(({ record }) => `${JSON.stringify(record)}\n`)
      .join(""),
  );
  await kubectl("delete", "secret", "didi-serve-keys", "--ignore-not-found");
  await kubectl("create", "secret", "generic", "didi-serve-keys", `--from-file=${file}`);
}

/** Delete what a kustomization has applied; check that nothing is left. */
async function remove(run: Run, overlay: string): Promise<void> {
  await timed(run, `deleting ${overlay}`, () =>
    kubectl("delete", "-k", overlay, "--ignore-not-found", "--wait", "--timeout=100s"),
  );
  const kinds = "deployments,pods,services,hpa,pdb,networkpolicies";
  let left = "";
  const gone = async () => {
    left = (await kubectl("get", kinds, "-o", "name")).trim();
    return left === "service/kubernetes";
  };
  // A pod has 75 s to stop.
  await until("everything is gone", gone, 80).catch(() => {});
  run.checks.push({
    claim: `deleting ${overlay} leaves nothing`,
    holds: left === "service/kubernetes",
    seen: left.replaceAll("\n", ", "),
  });
}

/** Everything beyond the short form. */
async function full(run: Run, folder: string, { seconds, seed }: Flags): Promise<string | undefined> {
  const overlay = "deploy/kubernetes/test/load";
  await createSecrets(folder);
  await kubectl(
    ...["create", "secret", "generic", "didi-serve-redis", "--from-literal=url=redis://10.96.0.60:6379"],
  );
  await cluster("wrap", "redis-server");
  await timed(run, "two replicas and Redis: apply to ready", async () => {
    await kubectl("apply", "-k", overlay);
    // Without it, the number of replicas stays as it is set.
    await kubectl("delete", "hpa", NAME);
    await scale(2);
    await rolledOut("deployment/redis");
  });
  run.sizes.push(sizeOf((await readyPods())[0]!, "idle"));
  run.checks.push(...(await timed(run, "limits of keys over replicas", checkLimits)));
  run.checks.push(
    ...(await timed(run, "walls of a pod", () => checkWalls(`docker.io/library/didi-serve:${VERSION}`))),
  );
  const ingress = await Ingress.start();
  const ways = { "the Service": await service(), nginx: ingress.origin };
  await underLoad(run, ways, ALL, seed);
  await ingress.stop();
  run.sizes.push(...(await readyPods()).map((pod, i) => sizeOf(pod, `after the load, pod ${i + 1}`)));
  run.throughput = await timed(run, "throughput of 1 and 2 replicas", measureThroughput);
  let picture: string | undefined;
  if (seconds > 0) {
    const eight = run.throughput.rows.find(({ replicas, clients }) => replicas === 1 && clients === 8)!;
    const capacity = median(eight.measured) / SHAPE.length;
    await scale(1);
    await kubectl("apply", "-k", overlay);
    run.autoscaling = await timed(run, "autoscaler under stepped load", async () =>
      watchAutoscaler(await service(), KEYS.load.key, capacity, seconds),
    );
    run.checks.push(...checksOf(run.autoscaling));
    picture = await drawAutoscaling(run.autoscaling.moments);
  }
  const dry = await kubectl("apply", "--dry-run=server", "-k", "deploy/kubernetes/cuda");
  run.checks.push({
    claim: "the API server accepts deploy/kubernetes/cuda (dry run)",
    holds: (dry.match(/created \(server dry run\)/g)?.length ?? 0) === 5,
    seen: `${dry.match(/created \(server dry run\)/g)?.length ?? 0} objects`,
  });
  await remove(run, overlay);
  return picture;
}

await script<Flags>(
  "cluster",
  "Apply the manifests to a Kubernetes on this machine, and disturb it under load. Linux, root.",
  [
    flag("--short", "only apply, roll under load and delete"),
    flag("--build", "build the image even if there is one of this version"),
    flag(
      "--seconds <n>",
      "duration of the stepped load on the autoscaler; 0 leaves it out",
      integer(0, 3600),
      600,
    ),
    flag("--seed <n>", "seed of the requests", integer(0, 2 ** 31), 1),
    flag("--out <folder>", "write cluster.md, cluster.json and cluster.svg here (default: print the report)"),
  ],
  async (flags) => {
    const reason = reasonNotToRun(!flags.short);
    if (reason) throw new StartupError(`no cluster can run here: ${reason}`);
    process.env.DIDI_API_KEY = KEYS.load.key;
    const run: Run = {
      ...{ machine: machine("stories-didi"), version: VERSION, times: {}, loads: {}, struck: [] },
      ...{ checks: [], sizes: [], seconds: 0 },
    };
    const folder = await mkdtemp(join(tmpdir(), "didi-cluster-"));
    // Ctrl-C leaves no cluster behind.
    process.once("SIGINT", () => void down().finally(() => process.exit(130)));
    let picture: string | undefined;
    try {
      await timed(run, "start of the cluster", up);
      await firstAnswer(run, flags.build ?? false);
      if (flags.short) {
        await createSecrets(folder);
        // Otherwise most answers would come from the cache.
        await kubectl("set", "env", DEPLOYMENT, "DIDI_CACHE_MB=0");
        // The pod before it has other keys, and answers until it ends.
        await scale(1);
        run.sizes.push(sizeOf((await readyPods())[0]!, "idle"));
        await underLoad(run, { "the Service": await service() }, ROLL, flags.seed);
        run.sizes.push(sizeOf((await readyPods())[0]!, "after the load"));
      }
      if (!flags.short) run.sizes.push(sizeOf((await readyPods())[0]!, "deploy/kubernetes/small, idle"));
      await remove(run, "deploy/kubernetes/small");
      if (!flags.short) picture = await full(run, folder, flags);
      run.seconds = elapsed();
      if (flags.out && picture) {
        await mkdir(flags.out, { recursive: true });
        await writeFile(join(flags.out, PICTURE), picture);
      }
      const { loads: _, ...data } = run;
      return publish(flags.out, "cluster", run.checks, markdownOf(run, picture && PICTURE), data);
    } finally {
      await down();
      await rm(folder, { recursive: true });
    }
  },
);
