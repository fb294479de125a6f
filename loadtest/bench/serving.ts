/** The cost of serving compared with a bare loop around the model, and the latency of a busy server. */

import { Agent, get } from "node:http";
import { paddedLength } from "../../src/engine/scheduling/scheduler.ts";
import type { Server } from "../servers/server.ts";
import { median, quantile, ratios } from "../traffic/statistics.ts";
import { BareLoop } from "./bare-loop.ts";
import { interleave, range, tableHead, tableRow } from "./measure.ts";
import { generate, sayMemory, served } from "./requests.ts";

/** The cells of the throughput table. */
export interface ServingOptions {
  model: string;
  /** New tokens of a request. */
  length: number;
  steps: readonly number[];
  clients: readonly number[];
  repeats: number;
  /** Approximate seconds of one measurement. */
  seconds: number;
  /** Threads of the server and of the bare loop; 0 is one for each core. */
  threads?: number;
  /** Workers of the server, and bare loops side by side. */
  workers?: number;
}

/** Seconds of requests before the first measurement, in which V8 compiles the server's code. */
const WARM_UP_SECONDS = 10;

/**
 * Print tokens a second of the server and of bare loops with batches of the same size. `other` is a second
 * server, measured alternately.
 */
export async function throughput(
  server: Server,
  options: ServingOptions,
  other?: { name: string; server: Server },
): Promise<void> {
  const { origin } = server;
  const { model, length, repeats, seconds, threads, workers = 1 } = options;
  const loops = new BareLoop(model, threads, workers);
  const padded = paddedLength(length, Number.POSITIVE_INFINITY);
  const most = Math.floor((await server.metric("didi_batch_tokens_limit")) / padded);
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
    workers > 1 ? `rows of each of ${workers} bare loops` : "rows of the bare loop",
    "bare",
    "served / bare",
    ...(other ? [`with ${other.name}`, `served / with ${other.name}`] : []),
  );
  for (const steps of options.steps)
    for (const clients of options.clients) {
      const rows = Math.min(Math.ceil(clients / workers), Math.max(1, most));
      const job = { rows, rounds: 1, length, steps };
      await loops.run(job);
      const once = (workers * rows * length) / (await loops.run(job));
      const rounds = Math.ceil((seconds / once) * ((workers * rows) / clients));
      const [ours, bare, theirs] = (await interleave(
        repeats,
        () => served(origin, clients, rounds, length, steps),
        () => loops.run({ ...job, rounds: Math.ceil((rounds * clients) / (workers * rows)) }),
        ...(other ? [() => served(other.server.origin, clients, rounds, length, steps)] : []),
      )) as [number[], number[], number[]?];
      tableRow(
        ...[steps, clients, range(ours, 0), rows, range(bare, 0), range(ratios(ours, bare), 3)],
        ...(theirs ? [range(theirs, 0), range(ratios(ours, theirs), 3)] : []),
      );
    }
  loops.close();
}

/** Return the milliseconds of one GET over a kept-alive connection. */
function ping(origin: string, agent: Agent): Promise<number> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    get(`${origin}/healthz`, { agent }, (response) => {
      response.resume().once("end", () => resolve(performance.now() - started));
    }).once("error", reject);
  });
}

/** Print the latency of /healthz, event-loop delay and memory while 16 requests of many steps run. */
export async function saturation(server: Server, length: number): Promise<void> {
  const { origin } = server;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  await ping(origin, agent);
  sayMemory(server, "idle");
  await server.eventLoopDelayMs(); // starts a new interval
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const idle = await server.eventLoopDelayMs();
  let running = true;
  const requests = Promise.all(
    Array.from({ length: 16 }, (_, seed) => generate(origin, { length, steps: 128, seed })),
  ).finally(() => {
    running = false;
  });
  const latencies: number[] = [];
  while (running) {
    latencies.push(await ping(origin, agent));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await requests;
  const busy = await server.eventLoopDelayMs();
  sayMemory(server, "after 16 concurrent requests");
  agent.destroy();
  const milliseconds = (value: number) => `${value.toFixed(2)} ms`;
  console.log(
    `Event-loop delay, p99: ${milliseconds(idle)} idle, ${milliseconds(busy)} at saturation\n` +
      `GET /healthz meanwhile: p50 ${milliseconds(quantile(latencies, 0.5))}, ` +
      `p99 ${milliseconds(quantile(latencies, 0.99))}, ` +
      `max ${milliseconds(Math.max(...latencies))} (${latencies.length} requests)`,
  );
}

/** Return the milliseconds of each of `count` requests of 4 steps, one after the other. */
async function shortRequests(origin: string, length: number, count: number): Promise<number[]> {
  const latencies: number[] = [];
  for (let seed = 0; seed < count; seed++) {
    const started = performance.now();
    await generate(origin, { length, steps: 4, seed });
    latencies.push(performance.now() - started);
  }
  return latencies;
}

/** Print the latency of a short request while long ones run. */
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
    `A request of 4 steps: ${idle.toFixed(1)} ms on an idle server (median of 40); ` +
      `while 8 requests of 128 steps run, p50 ${p50.toFixed(1)} ms, p95 ${p95.toFixed(1)} ms (of 100): ` +
      `${(p95 / idle).toFixed(2)} times as long`,
  );
}
