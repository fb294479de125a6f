/** The cluster of deploy/kubernetes/test: its programs, its API, its pods and their processes. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { PACKAGE_ROOT } from "../../src/package-root.ts";
import { findProgram } from "../../test/support/programs.ts";
import { until } from "../../test/support/until.ts";
import { treeUse } from "../servers/processes.ts";

const HOME = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "didi-serve", "cluster");
const PROGRAMS = ["podman", "runc", "containerd", "etcd", "iptables", "conntrack"];
/** Programs that the full run needs besides. */
const FULL_PROGRAMS = ["nginx", "redis-server", "prometheus"];
const SERVER = "app.kubernetes.io/name=didi-serve";

export const NAME = "didi-serve-cpu";
export const DEPLOYMENT = `deployment/${NAME}`;

/** Return why no cluster can run here, or false. */
export function reasonNotToRun(full = false): string | false {
  if (process.getuid?.() !== 0) return "a node needs root";
  const missing = [...PROGRAMS, ...(full ? FULL_PROGRAMS : [])].filter((program) => !findProgram(program));
  if (missing.length > 0) return `without ${missing.join(", ")} (head of deploy/kubernetes/test/cluster.sh)`;
  if (existsSync(join(HOME, "bin", "network-policies"))) return false;
  return "without Kubernetes (deploy/kubernetes/test/cluster.sh build)";
}

/** The variables with which kubectl finds the cluster. */
const environment = {
  ...process.env,
  KUBECONFIG: join(HOME, "run", "kubeconfig"),
  PATH: [join(HOME, "bin"), process.env.PATH].join(delimiter),
};

/** Run a program in the repository; resolve with its output, reject with it if the program fails. */
function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { cwd: PACKAGE_ROOT, env: environment, maxBuffer: 1 << 26 };
    execFile(program, [...args], options, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(" ")}: ${stdout}${stderr}`, { cause: error }));
      else resolve(stdout + stderr);
    }).stdin!.end();
  });
}

/** Run `cluster.sh`. */
export const cluster = (...args: string[]) =>
  run(join(PACKAGE_ROOT, "deploy", "kubernetes", "test", "cluster.sh"), args);
export const kubectl = (...args: string[]) => run(join(HOME, "bin", "kubectl"), args);
/** Run shell commands that may call kubectl. */
export const shell = (commands: string) => run("bash", ["-euo", "pipefail", "-c", commands]);

/** Wait until the current state of a deployment runs. */
export const rolledOut = (name = DEPLOYMENT) => kubectl("rollout", "status", name, "--timeout=180s");

/** Set the number of replicas and wait until they are ready and no other pod is left. */
export async function scale(replicas: number): Promise<void> {
  await kubectl("scale", DEPLOYMENT, `--replicas=${replicas}`);
  await rolledOut();
  await until(`there are ${replicas} pods`, async () => (await pods()).length === replicas, 90);
}

let proxy: { child: ChildProcess; origin: Promise<string> } | undefined;

/** Start `kubectl proxy`: the API without its credentials, which one process asks at little cost. */
function startProxy() {
  const child = spawn(join(HOME, "bin", "kubectl"), ["proxy", "--port=0"], {
    env: environment,
    stdio: ["ignore", "pipe", "ignore"],
  });
  process.once("exit", () => child.kill());
  const origin = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const [address] = /127\.0\.0\.1:\d+/.exec(line) ?? [];
      if (address) return `http://${address}`;
    }
    throw new Error("kubectl proxy did not start");
  })();
  return { child, origin };
}

/** Return an answer of the API. */
export async function api<T>(path: string): Promise<T> {
  proxy ??= startProxy();
  const response = await fetch(`${await proxy.origin}${path}`);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return (await response.json()) as T;
}

/** Start the cluster. */
export async function up(): Promise<void> {
  await cluster("down");
  await cluster("up");
}

/** Stop the cluster. */
export async function down(): Promise<void> {
  proxy?.child.kill();
  proxy = undefined;
  await cluster("down");
}

interface PodObject {
  metadata: { name: string; uid: string; deletionTimestamp?: string };
  spec: { nodeName?: string };
  status: {
    podIP?: string;
    qosClass: string;
    conditions?: { type: string; status: string; lastTransitionTime: string }[];
    containerStatuses?: { restartCount: number; state: { running?: { startedAt: string } } }[];
  };
}

/** A pod of the server. */
export interface Pod {
  name: string;
  uid: string;
  node: string | undefined;
  origin: string;
  ready: boolean;
  /** Whether it is being deleted. */
  ending: boolean;
  quality: string;
  restarts: number;
  /** Seconds from the start of its container until it was ready, in whole seconds. */
  startSeconds: number;
}

/** Return the pods of the server. */
export async function pods(): Promise<Pod[]> {
  const path = `/api/v1/namespaces/default/pods?labelSelector=${encodeURIComponent(SERVER)}`;
  return (await api<{ items: PodObject[] }>(path)).items.map(({ metadata, spec, status }) => {
    const ready = status.conditions?.find(({ type }) => type === "Ready");
    const [container] = status.containerStatuses ?? [];
    const started = Date.parse(container?.state.running?.startedAt ?? "");
    return {
      name: metadata.name,
      uid: metadata.uid,
      node: spec.nodeName,
      origin: `http://${status.podIP}:8080`,
      ready: ready?.status === "True",
      ending: metadata.deletionTimestamp !== undefined,
      quality: status.qosClass,
      restarts: container?.restartCount ?? 0,
      startSeconds: (Date.parse(ready?.lastTransitionTime ?? "") - started) / 1000,
    };
  });
}

/** Return the ready pods that are not being deleted. */
export const readyPods = async () => (await pods()).filter(({ ready, ending }) => ready && !ending);

/** Return the ids of the processes of the server's pods whose command line contains `part`. */
export function processes(part: string, { uid }: Pick<Pod, "uid"> = { uid: "" }): number[] {
  const read = (pid: string, file: string) => {
    try {
      return readFileSync(join("/proc", pid, file), "utf8");
    } catch {
      return "";
    }
  };
  return readdirSync("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => read(pid, "cmdline").replaceAll("\0", " ").includes(part))
    .filter((pid) => new RegExp(`/kubepods/.*${uid}`).test(read(pid, "cgroup")))
    .map(Number);
}

/** Parts of the command lines of the processes of a pod. */
export const [WORKER, MAIN] = ["/worker/worker.js", "dist/main.js serve"];

/** What one pod took. */
export interface Size {
  when: string;
  /** Seconds from the start of the container until the pod was ready. */
  startSeconds: number;
  quality: string;
  /** Resident megabytes. */
  server: number;
  workers: number;
}

/** Return the size of a pod now. */
export function sizeOf(pod: Pod, when: string): Size {
  const [main] = processes(MAIN, pod);
  const use = main === undefined ? undefined : treeUse(main);
  if (!use) throw new Error(`no server in ${pod.name}`);
  return {
    when,
    startSeconds: pod.startSeconds,
    quality: pod.quality,
    server: Math.round(use.own.residentBytes / 1e6),
    workers: Math.round(use.children.residentBytes / 1e6),
  };
}
