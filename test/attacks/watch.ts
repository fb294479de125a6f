/**
 * Watches a server from a separate process: `support.ts` starts it, sends "stop", and gets the measurements.
 */

import { readFileSync } from "node:fs";
import { Agent, get } from "node:http";

/** Milliseconds between requests, and between readings of the memory. */
const WATCH_MS = 10;

/** Clock ticks a second of /proc/PID/stat: 100 on every Linux. */
const TICKS = 100;

/** Measurements of a server. Times in milliseconds, memory in megabytes. */
export interface Watched {
  answers: number;
  /** Requests without an answer of status 200. */
  failed: number;
  p50: number;
  p99: number;
  most: number;
  /** Resident memory before the attack, at its maximum, and at the end. */
  rss: { before: number; most: number; after: number };
  /** CPU time of the server process. */
  cpuSeconds: number;
}

const origin = process.env.ORIGIN!;
const pid = Number(process.env.SERVER_PID);
const agent = new Agent({ keepAlive: true });
const times: number[] = [];
let failed = 0;

const rssMb = () => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

function cpuSeconds(): number {
  // The second field is the program's name in parentheses, and may hold spaces.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

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

const cpuBefore = cpuSeconds();
const rss = { before: rssMb(), most: rssMb(), after: 0 };
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
  rss.after = rssMb();
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
    cpuSeconds: cpuSeconds() - cpuBefore,
  };
  process.send!(seen);
});
