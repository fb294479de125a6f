/** All cheap attacks at once, from four clients, must not slow down other clients. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { TestKeys } from "../server/access/support.ts";
import type { TestServer } from "../support/server.ts";
import { askVictim, attack, flood, LONG, openSocket, startVictim, WIDE } from "./support.ts";

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

const RANKED = {
  prompt: "a",
  length: 64,
  steps: 64,
  guidance: { mode: "rgas", rerank_ratio: 1, candidates: 16 },
};

/**
 * Send messages for a second: 40,000 from all clients; more would only take processor time from the server.
 */
async function floodOnce(message: string, key?: string): Promise<void> {
  const socket = await openSocket(victim, { ...(key && { key }) });
  await flood(socket, message, 1000, 10);
  socket.terminate();
}

/** The attacks of one client, each repeated. */
const ATTACKS: Record<string, () => Promise<unknown>> = {
  "kept answers of 16,384 steps": () => ask("rich", LONG, "text/event-stream"),
  "steps that rank candidates": () => ask("thrifty", RANKED),
  "a socket without a key": () => floodOnce(WIDE),
  "messages that are none": () => floodOnce("{}", keys.keys.counted!),
  "prompts that are too long": () => ask("rich", { prompt: "a".repeat(60_000) }),
};

test("/healthz is answered within 100 ms while all of them run from four clients", async () => {
  assert.equal((await ask("rich", LONG)).status, 200);
  const runs = new Map(Object.keys(ATTACKS).map((name) => [name, 0]));
  await attack("all at once", victim, () => {
    const ends = performance.now() + SECONDS * 1000;
    return Promise.all(
      Array.from({ length: CLIENTS }, () => Object.entries(ATTACKS))
        .flat()
        .map(async ([name, run]) => {
          while (performance.now() < ends) {
            await run();
            runs.set(name, runs.get(name)! + 1);
            // A client that is refused at once must not block the other clients of this process.
            await sleep(20);
          }
        }),
    );
  });
  for (const [name, count] of runs) assert.ok(count > 0, `${name} did not run`);
});
