/** A Prometheus that scrapes the pods; the cluster's metrics API asks it. */

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram } from "../../test/support/programs.ts";
import { until } from "../../test/support/until.ts";
import { pods } from "./kubernetes.ts";

/** The address that deploy/kubernetes/test/cluster.sh gives the metrics API. */
const ADDRESS = "127.0.0.1:19090";

export class Prometheus {
  #over = false;
  #following: Promise<void> | undefined;

  private constructor(
    readonly child: ChildProcess,
    readonly folder: string,
  ) {}

  /** Start it; `key` is the API key of the scrapes. */
  static async start(key: string): Promise<Prometheus> {
    const folder = await mkdtemp(join(tmpdir(), "didi-prometheus-"));
    const config = {
      global: { scrape_interval: "5s" },
      scrape_configs: [
        {
          job_name: "didi-serve",
          authorization: { credentials: key },
          // Debian's Prometheus cannot ask Kubernetes for pods.
          file_sd_configs: [{ files: [join(folder, "pods.json")] }],
        },
      ],
    };
    await writeFile(join(folder, "prometheus.yml"), JSON.stringify(config));
    const flags = [`--config.file=${join(folder, "prometheus.yml")}`, `--web.listen-address=${ADDRESS}`];
    const child = spawn(
      findProgram("prometheus")!,
      [...flags, `--storage.tsdb.path=${join(folder, "data")}`],
      {
        stdio: "ignore",
      },
    );
    process.once("exit", () => child.kill("SIGKILL"));
    const prometheus = new Prometheus(child, folder);
    prometheus.#following = prometheus.#follow();
    await until("Prometheus has scraped a pod", async () => (await prometheus.value("sum(up)")) > 0);
    return prometheus;
  }

  /** Write the pods that Prometheus scrapes, with the labels that its Kubernetes discovery gives. */
  async #follow(): Promise<void> {
    while (!this.#over) {
      const targets = (await pods().catch(() => [])).map(({ origin, name }) => ({
        targets: [new URL(origin).host],
        labels: { namespace: "default", pod: name },
      }));
      await writeFile(join(this.folder, "pods.json"), JSON.stringify(targets));
      await sleep(2000);
    }
  }

  /** Return the value of a query with one result; 0 without a result. */
  async value(query: string): Promise<number> {
    const response = await fetch(`http://${ADDRESS}/api/v1/query?query=${encodeURIComponent(query)}`).catch(
      () => undefined,
    );
    if (!response?.ok) return 0;
    const { data } = (await response.json()) as { data: { result: { value: [number, string] }[] } };
    return Number(data.result[0]?.value[1] ?? 0);
  }

  async stop(): Promise<void> {
    this.#over = true;
    await this.#following;
    this.child.kill("SIGKILL");
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
