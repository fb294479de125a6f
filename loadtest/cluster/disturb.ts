/** What happens to pods and nodes while clients ask. */

import { setTimeout as sleep } from "node:timers/promises";
import { until } from "../../test/support/until.ts";
import { DEPLOYMENT, kubectl, MAIN, processes, readyPods, rolledOut, WORKER } from "./kubernetes.ts";

/** A disturbance; `strike` resolves when the cluster is whole again, with what was seen. */
export interface Disturbance {
  name: string;
  strike: () => Promise<string>;
}

const restart: Disturbance = {
  name: "rolling restart (`kubectl rollout restart`)",
  async strike() {
    await kubectl("rollout", "restart", DEPLOYMENT);
    await rolledOut();
    return "every pod replaced";
  },
};

const drain: Disturbance = {
  name: "`kubectl drain` of the node of both pods",
  async strike() {
    // All pods to node1 first, so that the budget must hold one of them back.
    await kubectl("cordon", "node2");
    await restart.strike();
    await until("both pods are on node1", async () =>
      (await readyPods()).every(({ node }) => node === "node1"),
    );
    await kubectl("uncordon", "node2");
    let fewest = Number.POSITIVE_INFINITY;
    let over = false;
    const watching = until(
      "the drain ends",
      async () => {
        fewest = Math.min(fewest, (await readyPods()).length);
        return over;
      },
      300,
    );
    const said = await kubectl("drain", "node1", "--timeout=240s", "--force").finally(() => {
      over = true;
    });
    await watching;
    await rolledOut();
    await kubectl("uncordon", "node1");
    const refused = said.match(/violate the pod's disruption budget/g)?.length ?? 0;
    return `the budget refused ${refused} evictions; never fewer than ${fewest} ready pods`;
  },
};

/** Kill processes of one pod and wait until as many pods are ready as before. */
async function kill(part: string): Promise<void> {
  const before = await readyPods();
  const pids = processes(part, before[0]!);
  if (pids.length === 0) throw new Error(`no process ${part} in ${before[0]!.name}`);
  for (const pid of pids) process.kill(pid, "SIGKILL");
  await until("the process is replaced", async () => {
    const now = processes(part, before[0]!);
    return now.length > 0 && now.every((pid) => !pids.includes(pid));
  });
  await until("every pod is ready", async () => (await readyPods()).length === before.length, 120);
}

const killWorker: Disturbance = {
  name: "SIGKILL of a worker",
  async strike() {
    await kill(WORKER);
    // For answers from the new worker.
    await sleep(5000);
    return "the server replaced it";
  },
};

const killServer: Disturbance = {
  name: "SIGKILL of a server",
  async strike() {
    const restarts = async () => (await readyPods()).reduce((sum, pod) => sum + pod.restarts, 0);
    const before = await restarts();
    await kill(MAIN);
    return `the kubelet restarted ${(await restarts()) - before} container`;
  },
};

const deletePod: Disturbance = {
  name: "a pod deleted without grace",
  async strike() {
    const [pod] = await readyPods();
    await kubectl("delete", "pod", pod!.name, "--force", "--grace-period=0");
    await rolledOut();
    return "another pod replaced it";
  },
};

export const ROLL: readonly Disturbance[] = [restart];
export const ALL: readonly Disturbance[] = [restart, drain, killWorker, killServer, deletePod];
