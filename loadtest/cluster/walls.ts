/** What a pod may not do: write its files, be asked from everywhere, connect to everything. */

import type { Check } from "../report/checks.ts";
import { kubectl, readyPods, rolledOut } from "./kubernetes.ts";

/** Namespaces of two askers: the policy admits the first. */
const [CLIENTS, STRANGERS] = ["clients", "strangers"];

/** Node that prints the status of an address, or what kept it from an answer. */
const fetching = (address: string) =>
  `fetch("${address}", { signal: AbortSignal.timeout(4000) }).then((r) => console.log("status", r.status),` +
  ` (e) => console.log("nothing:", e.cause?.code ?? e.name))`;

/** Try what the manifests forbid; `image` has Node. */
export async function checkWalls(image: string): Promise<Check[]> {
  for (const namespace of [CLIENTS, STRANGERS]) {
    await kubectl("create", "namespace", namespace);
    await kubectl(
      "-n",
      namespace,
      "create",
      "deployment",
      "asker",
      `--image=${image}`,
      "--",
      "sleep",
      "1000",
    );
  }
  await kubectl("label", "namespace", CLIENTS, "didi-serve/client=true");
  for (const namespace of [CLIENTS, STRANGERS])
    await kubectl("-n", namespace, "rollout", "status", "deployment/asker", "--timeout=60s");
  const [pod] = await readyPods();
  const inside = (namespace: string, name: string, ...command: string[]) =>
    kubectl("-n", namespace, "exec", name, "--", ...command).catch((error: Error) => error.message);
  const ask = async (namespace: string, name: string, address: string) =>
    (await inside(namespace, name, "node", "-e", fetching(address))).trim().split("\n").at(-1)!;

  const health = `${pod!.origin}/healthz`;
  const [client, stranger] = [
    await ask(CLIENTS, "deployment/asker", health),
    await ask(STRANGERS, "deployment/asker", health),
  ];
  // The kubelet's port on the bridge: reachable from a pod without a policy.
  const kubelet = "http://10.244.0.1:10250/";
  const [server, free] = [
    await ask("default", pod!.name, kubelet),
    await ask(STRANGERS, "deployment/asker", kubelet),
  ];
  const written = await inside("default", pod!.name, "touch", "/app/file");
  const user = await inside("default", pod!.name, "id", "-u");
  await kubectl("delete", "namespace", CLIENTS, STRANGERS, "--wait=false");
  await rolledOut();
  return [
    {
      claim: "the NetworkPolicy admits a pod of a labelled namespace, and no other",
      holds: client === "status 200" && stranger.startsWith("nothing"),
      seen: `labelled: ${client}; not labelled: ${stranger}`,
    },
    {
      claim: "the NetworkPolicy lets a server connect to Redis and DNS only",
      holds: server.startsWith("nothing") && free.startsWith("status"),
      seen: `to a port of the node, server: ${server}; pod without a policy: ${free}`,
    },
    {
      claim: "a server runs as user 1000 and cannot write its root file system",
      holds: /Read-only file system/.test(written) && user.trim() === "1000",
      seen: `user ${user.trim()}; ${/touch: .*/.exec(written)?.[0] ?? written}`,
    },
  ];
}
