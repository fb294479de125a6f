/** The connection and the limits, against Debian's redis-server. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RedisLimitStore } from "../../src/quota/redis.ts";
import { RedisLink } from "../../src/redis/link.ts";
import { programPath, skipWithout } from "../deploy/support.ts";
import { freePort } from "../support/programs.ts";

const skip = skipWithout("redis-server");
const open: { close(): void }[] = [];
let port: number;
let redis: ChildProcess;

function startRedis(): void {
  const args = ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  redis = spawn(programPath("redis-server"), [...args, "--dir", tmpdir()], { stdio: "ignore" });
}

async function kill(): Promise<void> {
  const exit = once(redis, "exit");
  redis.kill("SIGKILL");
  await exit;
}

before(async () => {
  if (skip) return;
  port = await freePort();
  startRedis();
});
after(async () => {
  for (const one of open) one.close();
  if (!skip) await kill();
});

async function connect(): Promise<RedisLink> {
  const link = await RedisLink.open(`redis://127.0.0.1:${port}`);
  open.push(link);
  return link;
}

/** The store of one server. */
async function store(leaseMs?: number) {
  const link = await connect();
  const limits = new RedisLimitStore(link, leaseMs);
  open.push(limits);
  return { link, limits };
}

const { POSITIVE_INFINITY: FOREVER } = Number;

test("a window counts for all servers, starts with the first amount, and ends", { skip }, async () => {
  const [{ limits: one }, { limits: other }] = [await store(), await store()];
  const take = (limits: RedisLimitStore, amount: number) =>
    limits.take("k", "token_passes_per_minute", amount, 300);
  assert.equal((await take(one, 5)).used, 5);
  const second = await take(other, 3);
  assert.equal(second.used, 8);
  assert.ok(second.resetMs > 0 && second.resetMs <= 300);
  assert.equal((await take(one, -3)).used, 5);
  assert.equal((await take(other, -50)).used, 0);
  // Other keys and limits are counted separately.
  assert.equal((await one.take("k", "requests_per_minute", 1, 300)).used, 1);
  assert.equal((await one.take("l", "token_passes_per_minute", 1, 300)).used, 1);
  await sleep(320);
  // Giving back after the end does not affect the next window.
  assert.equal((await take(one, -5)).used, 0);
  assert.equal((await take(other, 2)).used, 2);
});

test("concurrent requests count for all servers until they end or their server dies", {
  skip,
}, async () => {
  const [{ limits: one }, { limits: other, link }] = [await store(400), await store(400)];
  const take = (limits: RedisLimitStore, amount: number) =>
    limits.take("k", "concurrent_requests", amount, FOREVER);
  assert.deepEqual(await take(one, 2), { used: 2, resetMs: FOREVER });
  assert.equal((await take(other, 1)).used, 3);
  assert.equal((await take(one, -1)).used, 2);
  // Both servers renew for longer than a lease.
  await sleep(900);
  assert.equal((await take(one, 0)).used, 2);
  // A killed server gives nothing back.
  other.close();
  link.close();
  await sleep(500);
  assert.equal((await take(one, 0)).used, 1);
});

test("while Redis is unavailable a server counts alone, and renews its leases when it is back", {
  skip,
}, async () => {
  const [{ limits: one, link }, { limits: other }] = [await store(), await store()];
  const events: string[] = [];
  link.on("down", (reason) => events.push(`down ${reason}`));
  link.on("up", () => events.push("up"));
  const hold = (limits: RedisLimitStore, amount: number) =>
    limits.take("away", "concurrent_requests", amount, FOREVER);
  assert.equal((await hold(one, 1)).used, 1);
  assert.equal((await hold(other, 1)).used, 2);
  await kill();
  for (let i = 0; i < 5; i++) assert.equal(await link.run((redis) => redis.get("x")), undefined);
  assert.equal((await hold(one, 1)).used, 2);
  assert.equal((await one.take("away", "requests_per_minute", 4, 60_000)).used, 4);
  startRedis();
  while (link.down !== undefined) await sleep(20);
  assert.equal(events.length, 2);
  assert.match(events[0]!, /^down /);
  assert.equal(events[1], "up");
  // The other server has reconnected too, and both have renewed.
  let used = 0;
  for (let tries = 0; used !== 3 && tries < 200; tries++) {
    await sleep(20);
    ({ used } = await hold(other, 0));
  }
  assert.equal(used, 3);
});

test("a refused command is reported once, and Redis stays available", {
  skip,
}, async () => {
  const admin = await connect();
  await admin.redis.call("ACL", "SETUSER", "limited", "on", ">pw", "~didi:*", "+@all", "-eval");
  await admin.redis.lpush("didi:limit:requests_per_minute:typed", "x");
  await admin.redis.pexpire("didi:limit:requests_per_minute:typed", 60_000);
  const link = await RedisLink.open(`redis://limited:pw@127.0.0.1:${port}`);
  const limits = new RedisLimitStore(link);
  const { link: whole, limits: typed } = await store();
  open.push(link, limits);
  const events: string[] = [];
  for (const one of [link, whole]) {
    one.on("down", (reason) => events.push(`down ${reason}`));
    one.on("up", () => events.push("up"));
    one.on("refused", (command, reason) => events.push(`${command} ${reason.split(" ")[0]}`));
  }
  for (let i = 1; i <= 5; i++) {
    // Counted in this process instead.
    assert.equal((await limits.take("k", "requests_per_minute", 1, 60_000)).used, i);
    assert.equal((await typed.take("typed", "requests_per_minute", 1, 60_000)).used, i);
    // Allowed commands still work.
    await link.run((redis) => redis.set("didi:answer:x", String(i)));
    assert.equal(await link.run((redis) => redis.get("didi:answer:x")), String(i));
  }
  // Longer than the probe of an unavailable Redis.
  await sleep(1200);
  assert.equal(await link.run((redis) => redis.get("didi:answer:x")), "5");
  assert.equal(link.down, undefined);
  assert.equal(events.length, 2, events.join("; "));
  assert.match(events[0]!, /^EVAL NOPERM$/);
  assert.match(events[1]!, /^EVAL /);
});

test("a full or read-only Redis is unavailable until it accepts a write", { skip }, async () => {
  const admin = await connect();
  const link = await connect();
  await admin.redis.call("CONFIG", "SET", "maxmemory", "1");
  assert.equal(await link.run((redis) => redis.set("didi:x", "1")), undefined);
  assert.match(link.down!, /^OOM/);
  await sleep(1200);
  assert.match(link.down!, /^OOM/);
  await admin.redis.call("CONFIG", "SET", "maxmemory", "0");
  while (link.down !== undefined) await sleep(20);
});

test("the start waits for an unavailable Redis, but not long", { skip }, async () => {
  const nobody = await freePort();
  const link = await RedisLink.open(`redis://user:secret@127.0.0.1:${nobody}`);
  open.push(link);
  assert.match(link.down!, /ECONNREFUSED|not connected/);
  assert.equal(link.address, `127.0.0.1:${nobody}`);
  assert.ok(!link.down!.includes("secret"));
});
