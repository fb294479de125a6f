/** All cheap attacks at once, from four clients, must not slow down other clients. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";
import { TestKeys } from "../server/access/support.ts";
import type { TestServer } from "../support/server.ts";
import { askVictim, attack, BOUNDS, startVictim } from "./support.ts";

const CLIENTS = 4;
const SECONDS = 8;

let victim: TestServer;
let keys: TestKeys;
before(async () => {
  keys = await TestKeys.create({
    rich: {},
    thrifty: { token_passes_per_minute: 5_000 },
    counted: { requests_per_minute: 20 },
  });
  victim = await startVictim("--log-level", "error", "--api-keys", keys.path);
});
after(() => victim.stop());

const ask = (id: string, body: object, accept?: string) =>
  askVictim(victim.origin, keys.keys[id]!, body, accept);

/** Open a socket; close it if the server refuses it because the key has no requests left. */
async function open(headers: Record<string, string>): Promise<WebSocket> {
  const socket = new WebSocket(`${victim.origin.replace("http", "ws")}/generate/stream`, { headers });
  await new Promise((resolve) => socket.once("open", resolve).once("error", resolve));
  socket.on("error", () => {});
  return socket;
}

/** Write messages as fast as the connection accepts them, until it ends or the time is over. */
async function flood(socket: WebSocket, message: string, ends: number): Promise<void> {
  while (performance.now() < ends && socket.readyState === WebSocket.OPEN) {
    for (let i = 0; i < 100 && socket.bufferedAmount < 1 << 20; i++) socket.send(message);
    while (socket.bufferedAmount > 1 << 20 && performance.now() < ends) await sleep(5);
    // 40,000 messages a second from all four: more would only take processor time from the server.
    await sleep(10);
  }
  socket.terminate();
}

/** As many spans, steps and samples as the contract allows. */
const LONG = { template: "{{mask:1}}a".repeat(60), steps: 1024, n: 16, seed: 7, stop: ["b", "zz", "q", "0"] };
const RANKED = {
  prompt: "a",
  length: 64,
  steps: 64,
  guidance: { mode: "rgas", rerank_ratio: 1, candidates: 16 },
};
const WIDE = `{"type":"auth",${Array.from({ length: 90_000 }, (_, i) => `"f${i}":1`).join()}}`;

/** The attacks of one client, each repeated. */
const ATTACKS: Record<string, (ends: number) => Promise<unknown>> = {
  "kept answers of 16,384 steps": () => ask("rich", LONG, "text/event-stream"),
  "steps that rank candidates": () => ask("thrifty", RANKED),
  "a socket without a key": async (ends) =>
    flood(await open({}), WIDE, Math.min(ends, performance.now() + 1000)),
  "messages that are none": async (ends) =>
    flood(await open({ "x-api-key": keys.keys.counted! }), "{}", Math.min(ends, performance.now() + 1000)),
  "prompts that are too long": () => ask("rich", { prompt: "a".repeat(60_000) }),
};

test("/healthz is answered within 100 ms while all of them run from four clients", async () => {
  assert.equal((await ask("rich", LONG)).status, 200);
  const runs = new Map(Object.keys(ATTACKS).map((name) => [name, 0]));
  await attack(
    "all at once",
    victim,
    () => {
      const ends = performance.now() + SECONDS * 1000;
      return Promise.all(
        Array.from({ length: CLIENTS }, () => Object.entries(ATTACKS))
          .flat()
          .map(async ([name, run]) => {
            while (performance.now() < ends) {
              await run(ends);
              runs.set(name, runs.get(name)! + 1);
              // A client that is refused at once must not block the other clients of this process.
              await sleep(20);
            }
          }),
      );
    },
    ({ failed, p99 }) => {
      assert.equal(failed, 0);
      assert.ok(p99 < BOUNDS.loopMs, `${p99} ms`);
    },
  );
  for (const [name, count] of runs) assert.ok(count > 0, `${name} did not run`);
});
