/** nginx with deploy/nginx/nginx.conf in front of the pods, as an ingress controller runs it. */

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startNginx, writeNginxConf } from "../../test/support/nginx.ts";
import { answers, until } from "../../test/support/until.ts";
import { api, NAME } from "./kubernetes.ts";

/** Milliseconds between looks at the service's endpoints. */
const PERIOD_MS = 500;

interface Slices {
  items: { endpoints: { addresses: string[]; conditions: { ready?: boolean } }[] | null }[];
}

/** Return the addresses of the service's ready pods. */
async function endpoints(): Promise<string[]> {
  const selector = encodeURIComponent(`kubernetes.io/service-name=${NAME}`);
  const { items } = await api<Slices>(
    `/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=${selector}`,
  );
  return items
    .flatMap(({ endpoints }) => endpoints ?? [])
    .filter(({ conditions }) => conditions.ready)
    .map(({ addresses }) => `${addresses[0]}:8080`)
    .toSorted();
}

/** nginx whose upstream follows the endpoints of the service. */
export class Ingress {
  /** Times that the endpoints have changed. */
  reloads = 0;
  #over = false;
  #following: Promise<void> | undefined;

  private constructor(
    readonly origin: string,
    readonly child: ChildProcess,
    readonly folder: string,
    private known: string[],
  ) {}

  static async start(): Promise<Ingress> {
    const folder = await mkdtemp(join(tmpdir(), "didi-ingress-"));
    const known = await endpoints();
    const { child, origin } = await startNginx(folder, known, "ignore");
    const ingress = new Ingress(origin, child, folder, known);
    await until("a pod answers", () => answers(`${origin}/readyz`));
    ingress.#following = ingress.#follow();
    return ingress;
  }

  async #follow(): Promise<void> {
    while (!this.#over) {
      const now = await endpoints().catch(() => this.known);
      // nginx refuses an upstream without servers; the old ones answer 502, which clients retry.
      if (now.length > 0 && now.join() !== this.known.join()) {
        await writeNginxConf(this.folder, now, Number(new URL(this.origin).port));
        this.child.kill("SIGHUP");
        this.known = now;
        this.reloads++;
      }
      await sleep(PERIOD_MS);
    }
  }

  async stop(): Promise<void> {
    this.#over = true;
    await this.#following;
    const ended = once(this.child, "exit");
    this.child.kill("SIGTERM");
    await ended;
    await rm(this.folder, { recursive: true });
  }
}
