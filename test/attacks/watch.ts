/**
 * Watches a server from a separate process: `support.ts` starts it, sends "stop", and gets the measurements.
 */

import { Agent, get } from "node:http";
import { treeUse } from "../../loadtest/servers/processes.ts";

/** Milliseconds between requests, and between readings of the memory. */
const WATCH_MS = 10;

/** Measurements of a server. Times in milliseconds, memory in megabytes. */
export interface Watched {
  answers: number;
  /** Requests without an answer of status 200. */
  failed: number;
  p50: number;
  p99: number;
  most: number;
  /** Resident memory before the attack, and at its maximum. */
  rss: { before: number; most: number };
  /** CPU time of the server process. */
  cpuSeconds: number;
}

const origin = process.env.ORIGIN!;
const pid = Number(process.env.SERVER_PID);
const agent = new Agent({ keepAlive: true });
const times: number[] = [];
let failed = 0;

const use = () => treeUse(pid)!.own;
const rssMb = () => use().residentBytes / 1e6;

/** Send one request; resolve when it is answered. */
function ask(): Promise<void> {
  const started = performance.now();
  return new Promise((resolve) => {
    get(`${origin}/healthz`, { agent }, (response) => {
      response.resume().once("end", () => {
        if (response.statusCode === 200) times.push(performance.now() - started);
        else failed++;
        resolve();
      });
    }).once("error", () => {
      failed++;
      resolve();
    });
  });
}

// The first requests open connections and compile code.
for (let i = 0; i < 50; i++) await ask();
times.length = 0;
failed = 0;

const cpuBefore = use().cpuSeconds;
const rss = { before: rssMb(), most: rssMb() };
const waiting = new Set<Promise<void>>();
const timer = setInterval(() => {
  const asked = ask().finally(() => waiting.delete(asked));
  waiting.add(asked);
  rss.most = Math.max(rss.most, rssMb());
}, WATCH_MS);
process.send!("ready");

process.once("message", async () => {
  clearInterval(timer);
  await Promise.all(waiting);
  times.sort((a, b) => a - b);
  const at = (share: number) =>
    times[Math.min(times.length - 1, Math.floor(share * times.length))] ?? Infinity;
  const seen: Watched = {
    answers: times.length,
    failed,
    p50: at(0.5),
    p99: at(0.99),
    most: times.at(-1) ?? Infinity,
    rss,
    cpuSeconds: use().cpuSeconds - cpuBefore,
  };
  process.send!(seen);
});
