/** Three people follow the documents on a fresh clone, each with a clock: an engineer, a researcher, an operator. */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, type TestContext, test } from "node:test";
import { skipWithout } from "../deploy/support.ts";
import { type Ran, walk } from "./walk.ts";

const folder = await mkdtemp(join(tmpdir(), "didi-roles-"));
after(() => rm(folder, { recursive: true, force: true }));

const MINUTE_MS = 60_000;

/** Return what the one block printed whose text matches. */
function outputOf(ran: readonly Ran[], pattern: RegExp): string {
  const found = ran.filter(({ block }) => pattern.test(block.text));
  assert.equal(found.length, 1, `${found.length} blocks match ${pattern}`);
  return found[0]!.output;
}

/** Print how long each block took, and all together. */
function printTimes(t: TestContext, who: string, ran: readonly Ran[]): void {
  const lines = ran.map(
    ({ block, seconds }) =>
      `${seconds.toFixed(1).padStart(7)} s  ${block.where}  ${block.text.split("\n")[0]}`,
  );
  const total = ran.reduce((sum, { seconds }) => sum + seconds, 0);
  for (const line of [...lines, `${total.toFixed(1).padStart(7)} s  ${who}`]) t.diagnostic(line);
}

test("an engineer streams an answer by curl, WebSocket and OpenAI's client within 5 minutes", async (t) => {
  const ran = await walk("docs/start.md", join(folder, "engineer"), 5 * MINUTE_MS);
  printTimes(t, "engineer", ran);
  assert.equal(JSON.parse(outputOf(ran, /^curl -s http/)).samples[0].tokens.length, 64);
  const events = outputOf(ran, /^curl -sN/);
  assert.equal(events.match(/^event: step$/gm)?.length, 4);
  assert.match(events, /^event: done$/m);
  const steps = outputOf(ran, /^node stream\.mjs/).match(/^\d+\/16 \S/gm);
  assert.equal(steps?.length, 16);
  // The same text twice: at once, then in pieces.
  const text = outputOf(ran, /^node completion\.mjs/);
  const half = text.slice(0, text.indexOf("\n", text.length / 2 - 2));
  assert.ok(half.length > 20 && text.endsWith(half), text);
});

test("a researcher gets from a small checkpoint to a guided text with its rewards within 10 minutes", async (t) => {
  const page = "docs/bring-a-model.md";
  const ran = await walk(page, join(folder, "researcher"), 10 * MINUTE_MS, "The published checkpoint");
  printTimes(t, "researcher", ran);
  const rewards = outputOf(ran, /^curl -s .*\/generate/);
  assert.equal(rewards.match(/^"kind":"tilt","rewards":\[-?[\d.e-]+\]$/gm)?.length, 4, rewards);
  const reranked = rewards.match(/^"kind":"rerank","rewards":\[(-?[\d.e-]+,?){4}\],"chosen":[0-3]$/gm);
  assert.equal(reranked?.length, 4, rewards);
});

test("an operator has two servers behind nginx, with keys, TLS, Redis and a scrape that is up, within 15 minutes", {
  skip: skipWithout("nginx", "redis-server", "promtool", "prometheus"),
}, async (t) => {
  const ran = await walk("docs/operate.md", join(folder, "operator"), 15 * MINUTE_MS);
  printTimes(t, "operator", ran);
  assert.match(outputOf(ran, /keys list/), /^alice .*600 requests per minute/m);
  assert.equal(JSON.parse(outputOf(ran, /^curl .*--retry 10/)).samples[0].tokens.length, 32);
  assert.equal(outputOf(ran, /^for port in/), '"cache":"hit"\n"cache":"hit"\n');
  assert.match(outputOf(ran, /^promtool check/), /SUCCESS/);
  const { data } = JSON.parse(outputOf(ran, /^QUERY=/));
  assert.deepEqual(
    data.result.map(({ value }: { value: [number, string] }) => value[1]),
    ["1", "1"],
  );
  // The new key is served by both, and by the one that is left.
  for (const pattern of [/--id bob/, /^kill -TERM/])
    assert.match(outputOf(ran, pattern), /^\{"name":"stories-didi",/m);
});
