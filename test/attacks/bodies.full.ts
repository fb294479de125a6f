/** Bodies of a megabyte that are expensive to parse must not slow down other clients. */

import assert from "node:assert/strict";
import { Agent, request } from "node:http";
import { after, before, test } from "node:test";
import type { TestServer } from "../support/server.ts";
import { attack, startVictim } from "./support.ts";

/** Limit on the latency of /healthz while the bodies arrive, 99th percentile, milliseconds. */
const LOOP_MS = 50;

/** Duration in which a hundred bodies are sent repeatedly. */
const SECONDS = 3;

const BYTES = 1_000_000;

const fill = (start: string, part: (i: number) => string, end: string) => {
  let text = start;
  for (let i = 0; text.length < BYTES; i++) text += part(i);
  return text + end;
};

const BODIES: [name: string, body: string][] = [
  ["fields that there are not", fill('{"prompt":""', (i) => `,"f${i}":1`, "}")],
  ["stop strings of the wrong type", fill('{"prompt":"","stop":[0', () => ",0", "]}")],
  ["tokens that are none", fill('{"tokens":[0', () => ",-1", "]}")],
  ["lists within lists", `${"[".repeat(BYTES / 2)}${"]".repeat(BYTES / 2)}`],
  ["empty objects", fill('{"tokens":[{}', () => ",{}", "]}")],
];

let victim: TestServer;
before(async () => {
  victim = await startVictim("--log-level", "warn");
});
after(() => victim.stop());

function post(body: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    request(`${victim.origin}/generate`, { method: "POST", headers, agent }, (response) => {
      response.resume().once("end", () => resolve(response.statusCode!));
    })
      .once("error", reject)
      .end(body);
  });
}

for (const [name, body] of BODIES)
  test(`a hundred bodies of a megabyte, repeatedly: ${name}`, async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 8 });
    await attack(
      `100 bodies, ${name}`,
      victim,
      async () => {
        const ends = performance.now() + SECONDS * 1000;
        do {
          const statuses = await Promise.all(Array.from({ length: 100 }, () => post(body, agent)));
          assert.deepEqual([...new Set(statuses)], [400]);
        } while (performance.now() < ends);
      },
      ({ failed, p99 }) => {
        assert.equal(failed, 0);
        assert.ok(p99 < LOOP_MS, `${p99} ms`);
      },
    );
    agent.destroy();
  });
