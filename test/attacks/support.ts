/**
 * Runs the server as a child process under an attack, and a second process that watches it.
 *
 * The watcher sends GET /healthz every WATCH_MS, whether or not earlier answers have come, so that the time
 * of an answer is the delay of the server's event loop, and a blocked loop is seen as often as it should be.
 * It runs in its own process, so that a busy attacker does not look like a busy server.
 */

import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { setPriority } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { startServer, type TestServer } from "../support/server.ts";
import type { Watched } from "./watch.ts";

/** Default bounds of an attack. */
export const BOUNDS = {
  /** Delay of the event loop, 99th percentile, milliseconds. */
  loopMs: 100,
  /** Growth of the server's resident memory, megabytes. */
  memoryMb: 30,
};

/** A small heap, so that memory shows what the server keeps instead of uncollected garbage. */
const HEAP = ["--max-old-space-size=96", "--max-semi-space-size=2"];

/** Tries of an attack that asserts times, because the machine may be busy. */
const TRIES = 3;

/** Start the server with the smallest model unless `args` say otherwise. The caller stops it. */
export async function startVictim(...args: string[]): Promise<TestServer> {
  const flags = ["--device", "cpu", "--model", TINY_GUIDED, "--split", "1", ...args];
  const victim = await startServer(flags, HEAP);
  goFirst(victim.pid);
  return victim;
}

/**
 * Raise the priority of a process if that is permitted: real attackers run on other machines.
 */
function goFirst(pid: number): void {
  try {
    setPriority(pid, -10);
  } catch {
    // Not permitted: the measured times are less exact.
  }
}

/** Run `attack` while the server is watched. */
export async function watched(victim: TestServer, attack: () => Promise<unknown>): Promise<Watched> {
  const watcher = fork(fileURLToPath(new URL("./watch.ts", import.meta.url)), {
    execArgv: ["--import", "tsx"],
    env: { ...process.env, ORIGIN: victim.origin, SERVER_PID: String(victim.pid) },
  });
  goFirst(watcher.pid!);
  try {
    await once(watcher, "message");
    await attack();
    watcher.send("stop");
    const [seen] = (await once(watcher, "message")) as [Watched];
    return seen;
  } finally {
    watcher.kill("SIGKILL");
  }
}

/** Assert that other clients were answered, and in time. */
export function isQuick({ failed, p99 }: Watched): void {
  assert.equal(failed, 0);
  assert.ok(p99 < BOUNDS.loopMs, `${p99} ms`);
}

/** Return the measurements in one line, for the output of a test. */
function describe(name: string, { answers, failed, p50, p99, most, rss, cpuSeconds }: Watched): string {
  return (
    `${name}: /healthz answered ${answers} times, failed ${failed}; ` +
    `${p50.toFixed(1)} ms median, ${p99.toFixed(1)} ms 99th percentile, ${most.toFixed(1)} ms most; ` +
    `memory ${rss.before.toFixed(0)} MB, at most +${(rss.most - rss.before).toFixed(0)} MB; ` +
    `${cpuSeconds.toFixed(2)} s of CPU`
  );
}

/**
 * Attack the server and assert on the measurements, at most TRIES times until they hold. Print the
 * measurements of each try. Throws the error of the last try.
 */
export async function attack(
  name: string,
  victim: TestServer,
  run: () => Promise<unknown>,
  check: (seen: Watched) => void = isQuick,
): Promise<Watched> {
  for (let tried = 1; ; tried++) {
    const seen = await watched(victim, run);
    console.log(describe(`${name}, try ${tried}`, seen));
    try {
      check(seen);
      return seen;
    } catch (error) {
      if (tried === TRIES) throw error;
    }
  }
}

/** As many spans, steps and samples as the contract allows. */
export const LONG = {
  ...{ template: "{{mask:1}}a".repeat(60), steps: 1024, n: 16, seed: 7 },
  stop: ["b", "zz", "q", "0"],
};

/** A first message of 90,000 fields. */
export const WIDE = `{"type":"auth",${Array.from({ length: 90_000 }, (_, i) => `"f${i}":1`).join()}}`;

/** Open a socket. One that the server refuses is closed. */
export async function openSocket(
  { origin }: TestServer,
  { key, perMessageDeflate = false }: { key?: string; perMessageDeflate?: boolean } = {},
): Promise<WebSocket> {
  const headers = key === undefined ? {} : { "x-api-key": key };
  const address = `${origin.replace("http", "ws")}/generate/stream`;
  const socket = new WebSocket(address, { headers, perMessageDeflate });
  await new Promise((resolve) => socket.once("open", resolve).once("error", resolve));
  socket.on("error", () => {});
  return socket;
}

/** Write messages as fast as the connection accepts them, until it ends or the time is over. */
export async function flood(
  socket: WebSocket,
  message: string,
  milliseconds: number,
  pauseMs = 0,
): Promise<void> {
  const ends = performance.now() + milliseconds;
  while (performance.now() < ends && socket.readyState === WebSocket.OPEN) {
    for (let i = 0; i < 100 && socket.bufferedAmount < 1 << 20; i++) socket.send(message);
    while (socket.bufferedAmount > 1 << 20 && performance.now() < ends) await sleep(5);
    await sleep(pauseMs);
  }
}

/** POST `body` to /generate with an API key, read the answer to its end, and return its status and text. */
export async function askVictim(origin: string, key: string, body: object, accept = "application/json") {
  const response = await post(`${origin}/generate`, body, { "x-api-key": key, accept });
  return { status: response.status, text: await response.text() };
}
