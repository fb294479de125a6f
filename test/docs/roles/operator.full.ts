/** An operator follows docs/operate.md on a fresh clone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { skipWithout } from "../../deploy/support.ts";
import { outputOf, walk } from "./walk.ts";

test("an operator has two servers behind nginx, with keys, TLS, Redis and a scrape that is up, within 15 minutes", {
  skip: skipWithout("nginx", "redis-server", "promtool", "prometheus"),
}, async (t) => {
  const ran = await walk(t, "docs/operate.md", 15 * 60_000);
  assert.match(outputOf(ran, /keys list/), /^alice .*600/m);
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
