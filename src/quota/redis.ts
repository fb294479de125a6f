/**
 * Count usage in Redis for all servers, or in this process while Redis is unavailable.
 *
 * Not rate-limiter-flexible: it has no leases for concurrent requests, its insurance limiter starts from zero
 * when Redis becomes unavailable, and giving back after the end of a window starts a negative one.
 */

import { randomUUID } from "node:crypto";
import type { LimitName } from "../errors.ts";
import type { RedisLink } from "../redis/link.ts";
import { type LimitStore, MemoryLimitStore, type Usage } from "./memory.ts";

/** Milliseconds after which the concurrent requests of a server are released unless it renews them. */
const LEASE_MS = 15_000;

/**
 * Count within a window. KEYS[1]: the counter; ARGV: amount, window in milliseconds. A window starts with the
 * first amount; giving back after its end has no effect. Returns the amount used and the milliseconds left.
 */
const TAKE_IN_WINDOW = `
local left = redis.call("PTTL", KEYS[1])
if left < 0 then
  if tonumber(ARGV[1]) <= 0 then return {0, tonumber(ARGV[2])} end
  redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
  return {tonumber(ARGV[1]), tonumber(ARGV[2])}
end
local used = redis.call("INCRBY", KEYS[1], ARGV[1])
if used < 0 then
  used = 0
  redis.call("SET", KEYS[1], 0, "KEEPTTL")
end
return {used, left}`;

/**
 * Count leases. KEYS[1]: a hash of servers, each with its amount and the end of its lease; ARGV: this server,
 * its amount, the lease in milliseconds. Sets the amount instead of adding to it, so that nothing is lost or
 * counted twice when Redis was unavailable, and deletes expired servers. Returns the sum of all servers.
 */
const HOLD = `
local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[2]) > 0 then
  redis.call("HSET", KEYS[1], ARGV[1], ARGV[2] .. " " .. string.format("%.0f", now + ARGV[3]))
else
  redis.call("HDEL", KEYS[1], ARGV[1])
end
local held = 0
local all = redis.call("HGETALL", KEYS[1])
for i = 1, #all, 2 do
  local amount, ends = string.match(all[i + 1], "^(%d+) (%d+)$")
  if tonumber(ends) < now then
    redis.call("HDEL", KEYS[1], all[i])
  else
    held = held + amount
  end
end
redis.call("PEXPIRE", KEYS[1], ARGV[3])
return held`;

/** Never rejects: while Redis is unavailable, each server allows a key its whole limit. */
export class RedisLimitStore implements LimitStore {
  /** Usage through this server, which counts while Redis is unavailable. */
  readonly #local = new MemoryLimitStore();
  readonly #server = randomUUID();
  /** Amounts of limits without a window that this server has leased, by counter. */
  readonly #held = new Map<string, number>();
  readonly #renewal: NodeJS.Timeout;

  constructor(
    readonly link: RedisLink,
    readonly leaseMs = LEASE_MS,
  ) {
    this.#renewal = setInterval(() => this.#renew(), leaseMs / 3).unref();
    link.on("up", () => this.#renew());
  }

  async take(key: string, limit: LimitName, amount: number, windowMs: number): Promise<Usage> {
    const own = await this.#local.take(key, limit, amount, windowMs);
    const name = `didi:limit:${limit}:${key}`;
    if (Number.isFinite(windowMs)) {
      const answer = await this.link.run((redis) => redis.eval(TAKE_IN_WINDOW, 1, name, amount, windowMs));
      const [used, resetMs] = (answer as [number, number] | undefined) ?? [own.used, own.resetMs];
      return { used, resetMs };
    }
    if (own.used > 0) this.#held.set(name, own.used);
    else this.#held.delete(name);
    return { used: (await this.#hold(name, own.used)) ?? own.used, resetMs: own.resetMs };
  }

  /** Stop renewing leases; they expire. */
  close(): void {
    clearInterval(this.#renewal);
  }

  #hold(name: string, amount: number): Promise<number | undefined> {
    return this.link.run(
      (redis) => redis.eval(HOLD, 1, name, this.#server, amount, this.leaseMs) as Promise<number>,
    );
  }

  #renew(): void {
    for (const [name, amount] of this.#held) void this.#hold(name, amount);
  }
}
