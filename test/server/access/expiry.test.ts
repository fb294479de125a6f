/** Keys that expire. */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { mock, test } from "node:test";
import { createKey, KeyRing } from "../../../src/server/access/keys.ts";
import { scratch } from "../../support/scratch.ts";

const root = scratch("expiry");
const DAY_MS = 86_400_000;

test("a key works until it expires; its open connections end then, and a reload can extend it", async (t) => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.parse("2026-01-01T00:00:00Z") });
  t.after(() => mock.timers.reset());
  const file = join(root, "keys.jsonl");
  const { key, record } = createKey("alice", {}, "2026-03-01T00:00:00.000Z");
  const other = createKey("bob", {});
  const write = (expires: string) =>
    writeFile(
      file,
      [{ ...record, expires }, other.record].map((line) => `${JSON.stringify(line)}\n`).join(""),
    );
  await write(record.expires!);
  const ring = await KeyRing.open(file);
  const found = ring.find(key)!;
  assert.equal(found.id, "alice");

  // A month and a half: longer than the longest timer of Node.
  mock.timers.tick(45 * DAY_MS);
  assert.equal(ring.find(key), found);
  await write("2026-03-02T00:00:00.000Z");
  await ring.reload();
  mock.timers.tick(14 * DAY_MS);
  assert.deepEqual([ring.find(key), found.revoked.aborted], [found, false]);
  mock.timers.tick(DAY_MS);
  assert.deepEqual([ring.find(key), found.revoked.aborted], [undefined, true]);
  assert.equal(ring.find(other.key)?.id, "bob");
});

test("a key that has expired already is refused from the start, and a wrong time is an error", async () => {
  const file = join(root, "old.jsonl");
  const { key, record } = createKey("old", {}, "2020-01-01T00:00:00.000Z");
  await writeFile(file, `${JSON.stringify(record)}\n`);
  assert.equal((await KeyRing.open(file)).find(key), undefined);
  await writeFile(file, `${JSON.stringify({ ...record, expires: "soon" })}\n`);
  await assert.rejects(KeyRing.open(file), /old\.jsonl:1 is not a key: \/expires must match pattern/);
});
