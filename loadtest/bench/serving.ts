/** What serving costs beside a bare loop around the model, and whether the server answers while it works. */

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { Agent, get } from "node:http";
import { fileURLToPath } from "node:url";
import { paddedLength } from "../../src/engine/scheduler.ts";
import type { BareJob } from "./bare.ts";
import { interleave, median, quantile, range, ratios, tableHead, tableRow } from "./measure.ts";
import { generate, metric, type Server, sayMemory, served } from "./server.ts";

/** What the throughput table is taken over. */
export interface ServingOptions {
  model: string;
  /** New tokens of a generation. */
  length: number;
  steps: readonly number[];
  clients: readonly number[];
  repeats: number;
  /** About how long one measurement takes. */
  seconds: number;
  /** Of a call, on either side; 0: one for each core. */
  threads?: number;
  /** Runtime processes of the server, and bare loops side by side. */
  runtimes?: number;
}

/** Seconds of requests before anything is measured: a server that has run for a while has its code compiled. */
const WARM_UP_SECONDS = 10;

/** The bare loop, in a process of its own. */
export class BareLoop {
  readonly #child: ChildProcess;
  readonly #died: Promise<never>;

  constructor(
    readonly model: string,
    readonly threads = 0,
  ) {
    this.#child = fork(fileURLToPath(new URL("bare.ts", import.meta.url)));
    this.#died = once(this.#child, "exit").then(([code]) => {
      throw new Error(`the bare loop died with exit code ${code}`);
    });
    this.#died.catch(() => {});
  }

  /** Tokens a second of `rounds` batches of `rows` generations. Rejects if the process ends. */
  async run(job: Omit<BareJob, "model" | "threads">): Promise<number> {
    this.#child.send({ ...job, model: this.model, threads: this.threads } satisfies BareJob);
    const [elapsed] = (await Promise.race([once(this.#child, "message"), this.#died])) as [number];
    return (job.rows * job.rounds * job.length) / elapsed;
  }

  close(): void {
    this.#child.kill();
  }
}

/** Bare loops side by side. */
class BareLoops {
  readonly #loops: readonly BareLoop[];

  constructor({ model, threads, runtimes = 1 }: Pick<ServingOptions, "model" | "threads" | "runtimes">) {
    this.#loops = Array.from({ length: runtimes }, () => new BareLoop(model, threads));
  }

  /** Tokens a second of them all, each with the same job. Rejects if a process ends. */
  async run(job: Parameters<BareLoop["run"]>[0]): Promise<number> {
    const each = await Promise.all(this.#loops.map((loop) => loop.run(job)));
    return each.reduce((a, b) => a + b);
  }

  close(): void {
    for (const loop of this.#loops) loop.close();
  }
}

/** The table of served / bare; the loops' batches are as large as the server's calls. `other` is another server, measured in turn. */
export async function throughput(
  { origin }: Server,
  options: ServingOptions,
  other?: { name: string; server: Server },
): Promise<void> {
  const { length, repeats, seconds, runtimes = 1 } = options;
  const loops = new BareLoops(options);
  const padded = paddedLength(length, Number.POSITIVE_INFINITY);
  const most = Math.floor((await metric(origin, "didi_batch_tokens_limit")) / padded);
  for (const each of [origin, ...(other ? [other.server.origin] : [])]) {
    const warmUntil = performance.now() + WARM_UP_SECONDS * 1000;
    while (performance.now() < warmUntil) await served(each, 16, 1, length, 8);
  }
  console.log(
    `\nTokens a second, ${length} new tokens a request; median of ${repeats} (lowest to highest)\n`,
  );
  tableHead(
    "steps",
    "clients",
    "served",
    runtimes > 1 ? `rows of each of ${runtimes} bare loops` : "rows of the bare loop",
    "bare",
    "served / bare",
    ...(other ? [`with ${other.name}`, `served / with ${other.name}`] : []),
  );
  for (const steps of options.steps)
    for (const clients of options.clients) {
      const rows = Math.min(Math.ceil(clients / runtimes), Math.max(1, most));
      const job = { rows, rounds: 1, length, steps };
      await loops.run(job);
      const once = (runtimes * rows * length) / (await loops.run(job));
      const rounds = Math.ceil((seconds / once) * ((runtimes * rows) / clients));
      const [ours, bare, theirs] = (await interleave(
        repeats,
        () => served(origin, clients, rounds, length, steps),
        () => loops.run({ ...job, rounds: Math.ceil((rounds * clients) / (runtimes * rows)) }),
        ...(other ? [() => served(other.server.origin, clients, rounds, length, steps)] : []),
      )) as [number[], number[], number[]?];
      tableRow(
        ...[steps, clients, range(ours, 0), rows, range(bare, 0), range(ratios(ours, bare), 3)],
        ...(theirs ? [range(theirs, 0), range(ratios(ours, theirs), 3)] : []),
      );
    }
  loops.close();
}

/** Milliseconds of one GET over a kept-alive connection. */
function ping(origin: string, agent: Agent): Promise<number> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    get(`${origin}/healthz`, { agent }, (response) => {
      response.resume().once("end", () => resolve(performance.now() - started));
    }).once("error", reject);
  });
}

/** Answers of /healthz, event-loop delay and memory while 16 generations of many steps run. */
export async function saturation(server: Server, length: number): Promise<void> {
  const { origin } = server;
  const delay = "nodejs_eventloop_lag_p99_seconds";
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  await ping(origin, agent);
  sayMemory(server, "idle");
  await metric(origin, delay); // reading it begins anew
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const idle = await metric(origin, delay);
  let running = true;
  const generations = Promise.all(
    Array.from({ length: 16 }, (_, seed) => generate(origin, { length, steps: 128, seed })),
  ).finally(() => {
    running = false;
  });
  const latencies: number[] = [];
  while (running) {
    latencies.push(await ping(origin, agent));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await generations;
  const busy = await metric(origin, delay);
  sayMemory(server, "after 16 generations side by side");
  agent.destroy();
  const milliseconds = (value: number) => `${value.toFixed(2)} ms`;
  console.log(
    `Event-loop delay as Node measures it, p99: ${milliseconds(idle * 1000)} idle, ${milliseconds(busy * 1000)} at saturation\n` +
      `GET /healthz meanwhile: p50 ${milliseconds(quantile(latencies, 0.5))}, p99 ${milliseconds(quantile(latencies, 0.99))}, ` +
      `max ${milliseconds(Math.max(...latencies))} (${latencies.length} requests)`,
  );
}

/** Milliseconds of each of `count` requests of 4 steps, one after the other. */
async function shortRequests(origin: string, length: number, count: number): Promise<number[]> {
  const latencies: number[] = [];
  for (let seed = 0; seed < count; seed++) {
    const started = performance.now();
    await generate(origin, { length, steps: 4, seed });
    latencies.push(performance.now() - started);
  }
  return latencies;
}

/** A short request beside long ones. */
export async function fairness({ origin }: Server, length: number): Promise<void> {
  await shortRequests(origin, length, 5);
  const idle = median(await shortRequests(origin, length, 40));
  let over = false;
  const long = Promise.all(
    Array.from({ length: 8 }, async (_, client) => {
      for (let round = 0; !over; round++)
        await generate(origin, { length, steps: 128, seed: 8 * round + client });
    }),
  );
  await new Promise((resolve) => setTimeout(resolve, 500));
  const busy = await shortRequests(origin, length, 100);
  over = true;
  await long;
  const [p50, p95] = [quantile(busy, 0.5), quantile(busy, 0.95)];
  console.log(
    `A request of 4 steps: ${idle.toFixed(1)} ms on an idle server (median of 40); while 8 generations of 128 steps run, ` +
      `p50 ${p50.toFixed(1)} ms, p95 ${p95.toFixed(1)} ms (of 100): ${(p95 / idle).toFixed(2)} times`,
  );
}
