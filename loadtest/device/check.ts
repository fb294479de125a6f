/** Runs the parts of a device check one by one. */

import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { ONE_AT_A_TIME, startEngine, warmUp } from "../../src/cli/start-engine.ts";
import type { Engine, EngineLimits } from "../../src/engine/engine.ts";
import type { Precision } from "../../src/model/manifest.ts";
import { openModel } from "../../src/model/model.ts";
import { listGpus } from "../../src/runtime/cuda.ts";
import type { Device } from "../../src/runtime/protocol.ts";
import { Reference } from "../bench/reference.ts";
import { treeUse } from "../servers/processes.ts";
import { agreement, type Found } from "./agreement.ts";
import { type Recorded, record } from "./batches.ts";
import { requestInCompany, rowInCompany } from "./company.ts";
import { countCopies, sayCopies } from "./copies.ts";
import type { DeviceReport } from "./report.ts";
import { guidedSteps, type Side, tokensPerSecond, workerSide } from "./speed.ts";

/** What to measure. */
export interface Settings {
  device: Device;
  precision: readonly Precision[];
  rows: readonly number[];
  steps: readonly number[];
  length: number;
  /** Seconds that a figure may take. */
  cell: number;
  minutes: number;
  python: string;
}

/** Rows and steps of the samples that are compared with the CPU's. */
const COMPARED = { rows: 8, steps: 8 };
/** Requests that run alone and all at once. */
const REQUESTS = 8;

const LIMITS: EngineLimits = { ...ONE_AT_A_TIME, maxBatchTokens: "auto", maxActive: 64, maxQueue: 64 };

/** Return the megabytes in use on the GPUs; undefined without nvidia-smi. */
function gpuMegabytes(): number | undefined {
  try {
    const query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    const lines = execFileSync("nvidia-smi", query, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return lines
      .trim()
      .split("\n")
      .map(Number)
      .reduce((a, b) => a + b);
  } catch {
    return undefined;
  }
}

/** Return true if this Python can run the reference. */
const hasTorch = (python: string) =>
  spawnSync(python, ["-c", "import torch, safetensors"], { stdio: "ignore" }).status === 0;

/** A device check that grows part by part. */
export class Check {
  readonly #checks: DeviceReport["checks"] = [];
  readonly #speeds: DeviceReport["speeds"] = [];
  #device = "no model was loaded";

  constructor(
    readonly settings: Settings,
    /** `performance.now()` at the start of the whole run. */
    readonly started: number,
  ) {}

  /** Return what has been found. */
  result(): Pick<DeviceReport, "device" | "gpus" | "speeds" | "checks"> {
    return { device: this.#device, gpus: listGpus(), speeds: this.#speeds, checks: this.#checks };
  }

  /** Run a part and keep what it found. Return true unless it failed or no time was left. */
  async part(model: string, precision: string, part: string, run: () => Promise<Found>): Promise<boolean> {
    const begun = performance.now();
    const elapsed = Math.round((begun - this.started) / 1000);
    const name = `${model} ${precision}: ${part}`;
    const keep = (found: Found) => {
      const seconds = (performance.now() - begun) / 1000;
      this.#checks.push({ model, precision, part, ...found, seconds });
      console.error(`[${elapsed} s] ${name}: ${found.found} (${seconds.toFixed(1)} s)`);
    };
    if (elapsed > 60 * this.settings.minutes) {
      keep({ found: "not measured: the time is up" });
      return false;
    }
    console.error(`[${elapsed} s] ${name} …`);
    try {
      keep(await run());
      return true;
    } catch (error) {
      keep({ found: `failed: ${(error as Error).message}`, holds: false });
      return false;
    }
  }

  /** Count the copies of a call, which are those of every model with the same graphs. */
  async copies(nameOrFolder: string): Promise<void> {
    await this.part(nameOrFolder, "fp32", "copies of a call", async () => {
      const model = await openModel(nameOrFolder, "fp32");
      return { found: sayCopies(await countCopies(model, this.settings.length, COMPARED.rows)) };
    });
  }

  /** Check a model in every precision. */
  async model(nameOrFolder: string): Promise<void> {
    const { length, precision, python } = this.settings;
    const name = nameOrFolder.split("/").at(-1)!;
    const recorded: Recorded[] = [];
    await this.part(name, "fp32", "the CPU's results", async () => {
      const engine = await this.#start(nameOrFolder, "cpu", "fp32", ONE_AT_A_TIME);
      try {
        recorded.push(...(await record(engine.model, engine.pool, { ...COMPARED, length })));
        return { found: `${recorded.length} batches` };
      } finally {
        await engine.pool.close();
      }
    });
    for (const one of precision) await this.#precision(nameOrFolder, name, one, recorded, python);
  }

  #start(model: string, device: Device, precision: Precision, limits: EngineLimits): Promise<Engine> {
    return startEngine({ model, device, precision, threads: 0 }, limits, { workers: 1, split: "auto" });
  }

  async #precision(
    folder: string,
    name: string,
    precision: Precision,
    recorded: readonly Recorded[],
    python: string,
  ): Promise<void> {
    const { device, length, rows } = this.settings;
    const most = Math.max(...rows);
    const before = gpuMegabytes();
    let engine: Engine | undefined;
    const part = (title: string, run: (engine: Engine) => Promise<Found>) =>
      this.part(name, precision, title, () => run(engine!));
    const memory = () => {
      const megabytes = engine!.pool.pids.map((pid) => (treeUse(pid)?.own.residentBytes ?? 0) / 1e6);
      const gpu = gpuMegabytes();
      const host = `worker ${Math.round(megabytes.reduce((a, b) => a + b, 0))} MB`;
      return gpu === undefined ? host : `${host}, GPU ${gpu - (before ?? 0)} MB more than before`;
    };
    const loaded = await this.part(name, precision, "load", async () => {
      const started = performance.now();
      engine = await this.#start(folder, device, precision, LIMITS);
      const { provider, fallback } = engine.pool;
      this.#device = fallback === undefined ? provider : `${provider} (${fallback})`;
      await warmUp(engine);
      const seconds = (performance.now() - started) / 1000;
      return { found: `ready on ${provider} after ${seconds.toFixed(1)} s; ${memory()}` };
    });
    if (loaded) {
      await part("agreement with the CPU", ({ pool }) => agreement(pool, recorded, precision));
      await part("a row in company", ({ model, pool }) => rowInCompany(model, pool, length, most));
      await part("requests in company", (own) => requestInCompany(own, length, REQUESTS));
      await part("batch size at start", async (own) => {
        await own.measureBatches();
        return { found: `batches hold up to ${own.bounds.maxTokens} padded tokens` };
      });
      await part("tokens a second", async ({ model, pool }) => {
        await this.#grid(name, precision, "didi-serve", workerSide(model, pool, length));
        return { found: "in the first table" };
      });
      if (engine?.model.graphs.cpu.tilt)
        for (const count of rows.filter((count) => count <= 8))
          await part("guided steps", ({ model, pool }) => guidedSteps(model, pool, length, count));
      await part("memory", async () => ({ found: memory() }));
    }
    const { provider } = engine?.pool ?? {};
    await engine?.pool.close();
    if (!engine || provider === undefined) return;
    const weights = join(engine.model.folder, engine.model.manifest.weights?.file ?? "");
    await this.part(name, precision, "PyTorch", async () => {
      if (!hasTorch(python)) return { found: `not measured: ${python} has no torch and safetensors` };
      const flags = ["--weights", weights, "--device", provider, "--dtype", precision];
      const reference = await Reference.start(python, flags);
      try {
        const { torch, device: where } = reference.versions;
        const side: Side = (rows, steps) => reference.sample(rows, length, steps);
        await this.#grid(name, precision, "PyTorch", side);
        return { found: `PyTorch ${torch} on ${where}: all logits at every step` };
      } finally {
        reference.close();
      }
    });
  }

  async #grid(model: string, precision: string, side: string, run: Side): Promise<void> {
    const { rows, steps, length, cell } = this.settings;
    for (const count of rows) {
      const figures = await tokensPerSecond(run, count, length, steps, cell);
      this.#speeds.push({ model, precision, side, rows: count, tokensPerSecond: figures });
    }
  }
}
