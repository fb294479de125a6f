/**
 * Work that is cheap for the attacker: cached answers of many steps, and steps that cost more than they
 * reveal.
 */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { TestKeys } from "../server/access/support.ts";
import type { TestServer } from "../support/server.ts";
import { askVictim, attack, LONG, startVictim } from "./support.ts";

let victim: TestServer;
let keys: TestKeys;
before(async () => {
  keys = await TestKeys.create({
    rich: {},
    thrifty: { token_passes_per_minute: 5_000 },
    teller: { token_passes_per_minute: 20_000 },
  });
  victim = await startVictim("--log-level", "warn", "--api-keys", keys.path);
});
after(() => victim.stop());

const ask = (id: string, body: object, accept?: string) =>
  askVictim(victim.origin, keys.keys[id]!, body, accept);

/** Clients that repeat the same request. */
const askAll = (clients: number, times: number, run: () => Promise<unknown>) =>
  Promise.all(
    Array.from({ length: clients }, async () => {
      for (let i = 0; i < times; i++) await run();
    }),
  );

test("a cached answer of 16,384 steps that is streamed to four clients does not delay others", async () => {
  await ask("rich", LONG);
  await attack("kept answer, streamed", victim, () =>
    askAll(4, 2, async () => {
      const { status, text } = await ask("rich", LONG, "text/event-stream");
      assert.equal(status, 200);
      assert.match(text, /"cache":"hit"/);
    }),
  );
});

test("the longest allowed trace, cached and requested by four clients, does not delay others", async () => {
  const traced = { ...LONG, n: 2, trace: true, logprobs: true };
  await ask("rich", traced);
  await attack("kept answer, traced", victim, () =>
    askAll(4, 2, async () => {
      const { status, text } = await ask("rich", traced);
      assert.equal(status, 200);
      assert.match(text, /"cache":"hit"/);
    }),
  );
});

test("clients that join a running request late get its steps without delaying others", async () => {
  let seed = 100;
  await attack("late joiners", victim, async () => {
    const request = { ...LONG, seed: seed++ };
    const first = ask("rich", request, "text/event-stream");
    const joined = Array.from({ length: 12 }, async (_, i) => {
      await new Promise((resolve) => setTimeout(resolve, 300 + 20 * i));
      return ask("rich", request, "text/event-stream");
    });
    for (const { status } of await Promise.all([first, ...joined])) assert.equal(status, 200);
  });
});

test("cached answers are charged", async () => {
  const hits = async () => {
    let count = 0;
    while (count < 50 && (await ask("teller", LONG, "text/event-stream")).status === 200) count++;
    return count;
  };
  await ask("rich", LONG);
  // 16,384 texts of at least 256 tokens cost 4,096 token passes.
  assert.equal(await hits(), Math.floor(20_000 / 4_096));
});

/** Return the token passes that the server has run: every canvas of this attack is padded to 32 tokens. */
async function ran(): Promise<number> {
  const metrics = await (
    await fetch(`${victim.origin}/metrics`, { headers: { "x-api-key": keys.keys.rich! } })
  ).text();
  const of = (kind: string) =>
    Number(new RegExp(`^didi_passes_total\\{kind="${kind}"\\} (\\d+)`, "m").exec(metrics)?.[1]);
  return 32 * (of("student") + of("discriminator") + 2 * of("gradient"));
}

test("a limit of 5,000 token passes is not exceeded, re-ranked steps included", async () => {
  const before = await ran();
  const guidance = { mode: "rgas", rerank_ratio: 1, candidates: 16 };
  let refused = 0;
  for (let seed = 0; refused < 3 && seed < 200; seed++) {
    const { status } = await ask("thrifty", { prompt: "", length: 4, steps: 8, seed, guidance });
    if (status === 429) refused++;
    else assert.equal(status, 200);
  }
  assert.equal(refused, 3);
  const passes = (await ran()) - before;
  assert.ok(passes > 0 && passes <= 5_000, `${passes} token passes ran`);
  // A request above the limit is refused.
  const { status } = await ask("thrifty", { prompt: "", length: 4, steps: 1024, guidance });
  assert.equal(status, 413);
});
