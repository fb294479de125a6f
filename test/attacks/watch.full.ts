/** Tests the watcher: an idle server is within every bound, and a server that stops for a moment is not. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestServer } from "../support/server.ts";
import { attack, BOUNDS, startVictim, watched } from "./support.ts";

let victim: TestServer;
before(async () => {
  victim = await startVictim();
});
after(() => victim.stop());

test("an idle server is within the bounds of attacks", async () => {
  await attack(
    "idle",
    victim,
    () => sleep(3000),
    ({ answers, failed, p99, rss }) => {
      assert.ok(answers > 100, `${answers} answers`);
      assert.equal(failed, 0);
      assert.ok(p99 < BOUNDS.loopMs, `${p99} ms`);
      assert.ok(rss.most - rss.before < BOUNDS.memoryMb, `${rss.most - rss.before} MB`);
    },
  );
});

test("a server that stops for half a second is detected", async () => {
  const { p99, most } = await watched(victim, async () => {
    await sleep(1000);
    victim.child.kill("SIGSTOP");
    await sleep(500);
    victim.child.kill("SIGCONT");
    await sleep(1000);
  });
  assert.ok(p99 > 350 && most >= p99, `${p99} ms, ${most} ms`);
});
