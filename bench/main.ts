/**
 * `npm run bench`: what serving costs, and whether the server answers while it works.
 *
 * Throughput is given beside a bare loop around `denoise` on the same work, measured alternately in
 * the same run, as the median of the repeats with their range.
 */

import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, get } from "node:http";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { PACKAGE_ROOT } from "../src/package-root.ts";
import { untilReady } from "../tools/until-ready.ts";
import type { BareJob } from "./bare.ts";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", default: "stories-mdlm" },
    length: { type: "string", default: "128" },
    repeats: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    help: { type: "boolean", default: false },
  },
});
if (flags.help) {
  console.log(`npm run bench -- [flags]
  --model <name|folder>  (default stories-mdlm)
  --length <n>           new tokens of each generation (default 128)
  --repeats <n>          interleaved repeats of each cell (default 5)
  --seconds <n>          about how long one measurement takes (default 2)`);
  process.exit(0);
}
const length = Number(flags.length);
const repeats = Number(flags.repeats);
const seconds = Number(flags.seconds);

const sorted = (values: number[]) => values.toSorted((a, b) => a - b);
const quantile = (values: number[], q: number) =>
  sorted(values)[Math.min(values.length - 1, Math.floor(q * values.length))]!;
const median = (values: number[]) => {
  const s = sorted(values);
  return (s[(s.length - 1) >> 1]! + s[s.length >> 1]!) / 2;
};
const range = (values: number[], digits: number) =>
  `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})`;

/** Starts the built server on a free port. */
async function startServer(): Promise<{ child: ChildProcess; origin: string }> {
  const args = [
    "dist/main.js",
    "serve",
    "--port",
    "0",
    "--device",
    "cpu",
    "--log-level",
    "warn",
    "--cache-mb",
    "0",
  ];
  const child = spawn(process.execPath, [...args, "--model", flags.model], {
    cwd: PACKAGE_ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  return { child, ...(await untilReady(child)) };
}

async function generate(origin: string, steps: number, seed: number): Promise<number> {
  const response = await fetch(`${origin}/generate`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: "", length, steps, seed }),
  });
  if (!response.ok) throw new Error(await response.text());
  return ((await response.json()) as { usage: { completion_tokens: number } }).usage.completion_tokens;
}

/** Tokens a second of `clients` clients that each ask `rounds` times. */
async function served(origin: string, clients: number, rounds: number, steps: number): Promise<number> {
  const started = performance.now();
  const client = async (c: number) => {
    let tokens = 0;
    for (let r = 0; r < rounds; r++) tokens += await generate(origin, steps, r * clients + c);
    return tokens;
  };
  const tokens = await Promise.all(Array.from({ length: clients }, (_, c) => client(c)));
  return tokens.reduce((a, b) => a + b) / ((performance.now() - started) / 1000);
}

/** Tokens a second of the bare loop on the same work. */
async function bare(child: ChildProcess, rows: number, rounds: number, steps: number): Promise<number> {
  const job: BareJob = { model: flags.model, threads: 0, rows, rounds, length, steps };
  child.send(job);
  const [elapsed] = (await once(child, "message")) as [number];
  return (rows * rounds * length) / elapsed;
}

async function throughput(origin: string): Promise<void> {
  const loop = fork(fileURLToPath(new URL("bare.ts", import.meta.url)));
  loop.once("exit", (code) => {
    if (code) throw new Error(`the bare loop died with exit code ${code}`);
  });
  await bare(loop, 1, 1, 8);
  console.log(
    `\nTokens a second, ${length} new tokens a request; median of ${repeats} (lowest to highest)\n`,
  );
  console.log("| steps | clients | served | bare loop | served / bare |\n|---|---|---|---|---|");
  for (const steps of [8, 16, 32])
    for (const clients of [1, 8]) {
      const once = (clients * length) / (await bare(loop, clients, 1, steps));
      const rounds = Math.max(1, Math.round(seconds / once));
      await served(origin, clients, 1, steps);
      const [ours, theirs]: [number[], number[]] = [[], []];
      for (let i = 0; i < repeats; i++) {
        ours.push(await served(origin, clients, rounds, steps));
        theirs.push(await bare(loop, clients, rounds, steps));
      }
      const ratios = ours.map((value, i) => value / theirs[i]!);
      console.log(
        `| ${steps} | ${clients} | ${range(ours, 0)} | ${range(theirs, 0)} | ${range(ratios, 3)} |`,
      );
    }
  loop.kill();
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

async function health(origin: string): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  await ping(origin, agent);
  let running = true;
  const generations = Promise.all(
    Array.from({ length: 16 }, (_, seed) => generate(origin, 128, seed)),
  ).finally(() => {
    running = false;
  });
  const latencies: number[] = [];
  while (running) {
    latencies.push(await ping(origin, agent));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await generations;
  agent.destroy();
  const [p50, p99, max] = [quantile(latencies, 0.5), quantile(latencies, 0.99), Math.max(...latencies)];
  console.log(
    `\nGET /healthz while 16 generations of 128 steps run: p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms, ` +
      `max ${max.toFixed(2)} ms (${latencies.length} requests)`,
  );
}

/** Milliseconds of each of `count` requests of 4 steps, one after the other. */
async function shortRequests(origin: string, count: number): Promise<number[]> {
  const latencies: number[] = [];
  for (let seed = 0; seed < count; seed++) {
    const started = performance.now();
    await generate(origin, 4, seed);
    latencies.push(performance.now() - started);
  }
  return latencies;
}

async function fairness(origin: string): Promise<void> {
  await shortRequests(origin, 5);
  const idle = median(await shortRequests(origin, 40));
  let over = false;
  const long = Promise.all(
    Array.from({ length: 8 }, async (_, client) => {
      for (let round = 0; !over; round++) await generate(origin, 128, 8 * round + client);
    }),
  );
  await new Promise((resolve) => setTimeout(resolve, 500));
  const busy = await shortRequests(origin, 100);
  over = true;
  await long;
  const [p50, p95] = [quantile(busy, 0.5), quantile(busy, 0.95)];
  console.log(
    `\nA request of 4 steps: ${idle.toFixed(1)} ms on an idle server (median of 40); while 8 generations of 128 steps run, ` +
      `p50 ${p50.toFixed(1)} ms, p95 ${p95.toFixed(1)} ms (of 100): ${(p95 / idle).toFixed(2)} times`,
  );
}

const require = createRequire(import.meta.url);
const ortVersion = JSON.parse(readFileSync(require.resolve("onnxruntime-node/package.json"), "utf8")).version;
console.log(
  `${cpus().length} x ${cpus()[0]!.model.trim()}, Node ${process.version}, onnxruntime-node ${ortVersion}, ` +
    `model ${flags.model} from ${join("models", flags.model)}`,
);
const server = await startServer();
try {
  await health(server.origin);
  await fairness(server.origin);
  await throughput(server.origin);
} finally {
  server.child.kill("SIGTERM");
}
