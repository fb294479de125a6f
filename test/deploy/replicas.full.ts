/** Two replicas behind nginx with Redis (deploy/): one is killed, one is drained, Redis goes away. */

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { scrape } from "../../loadtest/servers/server.ts";
import { DidiClient, type GenerateResponse } from "../../src/client/index.ts";
import { createKey } from "../../src/server/access/keys.ts";
import { TINY_GUIDED } from "../support/engine.ts";
import { post } from "../support/http.ts";
import { startNginx } from "../support/nginx.ts";
import { freePort } from "../support/programs.ts";
import { scratch } from "../support/scratch.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { programPath, skipWithout } from "./support.ts";

const skip = skipWithout("nginx", "redis-server");
const folder = scratch("deploy");
const children = new Set<ChildProcess>();

/** Remember a process, to end it after the tests. */
function register(child: ChildProcess): ChildProcess {
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

/** Kill a process; resolve when it has ended. */
async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  const exit = once(child, "exit");
  child.kill(signal);
  return (await exit)[0];
}

const keys = {
  load: createKey("load", {}),
  minute: createKey("minute", { requests_per_minute: 6 }),
  passes: createKey("passes", { token_passes_per_minute: 32 * 4 * 5 }),
  alone: createKey("alone", { requests_per_minute: 3 }),
  side: createKey("side", { concurrent_requests: 2 }),
};

/** A server that can be restarted on the same port. */
class Replica {
  #server: TestServer | undefined;

  constructor(
    readonly port: number,
    readonly redisPort: number,
  ) {}

  get child(): ChildProcess {
    return this.#server!.child;
  }

  get origin(): string {
    return this.#server!.origin;
  }

  async start(): Promise<void> {
    const shared = ["--api-keys", join(folder, "keys"), "--redis", `redis://127.0.0.1:${this.redisPort}`];
    const own = ["--model", TINY_GUIDED, "--port", `${this.port}`, "--max-batch-tokens", "512"];
    this.#server = await startServer([...own, ...shared]);
    register(this.child);
  }

  /** Log messages of level warning and above since the last start. */
  get complaints(): string[] {
    const lines = this.#server!.output().split("\n");
    const log = lines.filter((line) => /^\{.*\}$/.test(line)).map((line) => JSON.parse(line));
    return log.filter(({ level }) => level >= 40).map(({ msg }) => msg);
  }

  async metric(name: string): Promise<number> {
    const metrics = await scrape(this.origin, { authorization: `Bearer ${keys.load.key}` });
    const value = metrics.get(name);
    assert.ok(value !== undefined, name);
    return value;
  }

  /** Send one request without retries. */
  async generate(key: string, body: object): Promise<{ status: number; answer: GenerateResponse }> {
    const asked = { prompt: "Once", length: 24, steps: 4, ...body };
    const response = await post(`${this.origin}/generate`, asked, { authorization: `Bearer ${key}` });
    return { status: response.status, answer: (await response.json()) as GenerateResponse };
  }
}

let a: Replica;
let b: Replica;
let redis: ChildProcess;
let redisPort: number;
let nginx: ChildProcess;
let client: DidiClient;

async function startRedis(): Promise<void> {
  const args = ["--port", `${redisPort}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
  redis = register(spawn(programPath("redis-server"), [...args, "--dir", folder], { stdio: "ignore" }));
}

/** Resolve when both replicas use Redis. */
const shared = () =>
  until("both use Redis", async () =>
    (await Promise.all([a, b].map((one) => one.metric("didi_redis_up")))).every((up) => up === 1),
  );

before(async () => {
  if (skip) return;
  await writeFile(
    join(folder, "keys"),
    Object.values(keys)
      .map(({ record }) => `${JSON.stringify(record)}\n`)
      .join(""),
  );
  redisPort = await freePort();
  await startRedis();
  a = new Replica(await freePort(), redisPort);
  b = new Replica(await freePort(), redisPort);
  await Promise.all([a.start(), b.start()]);
  const { child, origin } = await startNginx(folder, [a.port, b.port]);
  nginx = register(child);
  client = new DidiClient(origin, {
    headers: { authorization: `Bearer ${keys.load.key}` },
    retry: { retries: 20, firstMs: 50, longestMs: 1000 },
  });
});
after(async () => {
  // nginx has workers, which SIGKILL of the master would leave.
  await Promise.all([...children].map((child) => end(child, child === nginx ? "SIGTERM" : "SIGKILL")));
});

test("a replica answers from the cache of the other", { skip }, async () => {
  const first = await a.generate(keys.load.key, { seed: 1, trace: true });
  assert.equal(first.answer.cache, "miss");
  const second = await b.generate(keys.load.key, { seed: 1, trace: true });
  assert.equal(second.answer.cache, "hit");
  const { samples, usage, receipt, trace } = first.answer;
  assert.deepEqual(
    { samples: second.answer.samples, usage: second.answer.usage, trace: second.answer.trace },
    { samples, usage, trace },
  );
  assert.deepEqual(second.answer.receipt, receipt);
  assert.equal(await b.metric('didi_cache_lookups_total{tier="shared",result="hit"}'), 1);
  // Now its own cache has the answer.
  await b.generate(keys.load.key, { seed: 1 });
  assert.equal(await b.metric('didi_cache_lookups_total{tier="memory",result="hit"}'), 1);
  // Another seed, or none, is another answer.
  assert.equal((await b.generate(keys.load.key, { seed: 2 })).answer.cache, "miss");
  assert.equal((await b.generate(keys.load.key, {})).answer.cache, "miss");
});

test("a key's limits apply across replicas", { skip }, async () => {
  const take = async (key: string, count: number, body: object) => {
    const statuses: number[] = [];
    for (let i = 0; i < count; i++) statuses.push((await [a, b][i % 2]!.generate(key, body)).status);
    return statuses.filter((status) => status === 200).length;
  };
  assert.equal(await take(keys.minute.key, 10, {}), 6);
  // Each costs 32 padded tokens times 4 steps.
  assert.equal(await take(keys.passes.key, 10, {}), 5);
  const long = { steps: 400, length: 24, n: 8 };
  const running = [a, b].map((one) => one.generate(keys.side.key, long));
  const bothRun = async () => {
    const active = await Promise.all([a, b].map((one) => one.metric("didi_active_rows")));
    return active.every((rows) => rows > 0);
  };
  await until("both run", bothRun, 10, 10);
  for (const one of [a, b]) assert.equal((await one.generate(keys.side.key, {})).status, 429);
  for (const { status } of await Promise.all(running)) assert.equal(status, 200);
  assert.equal((await a.generate(keys.side.key, {})).status, 200);
});

test("clients lose nothing when one replica is killed and another drained under load", { skip }, async () => {
  const answers = new Map<number, string>();
  const request = (seed: number) => ({ prompt: "Once", length: 24, steps: 24, seed });
  let [next, over] = [1000, false];
  const worker = async () => {
    while (!over && next < 10_000) {
      const seed = next++;
      if (seed % 2 === 0) {
        const answer = await client.generate(request(seed));
        answers.set(seed, answer.samples[0]!.tokens.join());
        continue;
      }
      const steps: number[] = [];
      for await (const event of client.stream(request(seed))) {
        if (event.type === "step") steps.push(event.step);
        if (event.type === "done") answers.set(seed, event.samples[0]!.tokens.join());
      }
      // A merged event stands for the steps up to it; none may come twice, or out of order.
      assert.ok(
        steps.every((step, k) => k === 0 || step > steps[k - 1]!),
        steps.join(),
      );
      assert.equal(steps.at(-1), 24);
    }
  };
  const load = Promise.all(Array.from({ length: 8 }, worker));
  // One that rejects before the end is seen there; it must not end the process before.
  load.catch(() => {});
  const busy = (one: Replica) => until("it computes", async () => (await one.metric("didi_active_rows")) > 0);
  const more = (count: number) => {
    const from = answers.size;
    return until(`${count} more are answered`, () => answers.size >= from + count);
  };
  await more(10);
  await busy(a);
  await end(a.child, "SIGKILL");
  await more(10);
  await a.start();
  await more(10);
  await busy(b);
  assert.equal(await end(b.child, "SIGTERM"), 0);
  await more(10);
  await b.start();
  await more(10);
  over = true;
  await load;
  assert.equal(answers.size, next - 1000);
  // The same as from one replica that nothing happens to. So many likeliest tokens are all of them: no cache
  // knows that.
  for (const [seed, tokens] of answers) {
    if (seed % 10 > 1) continue;
    const { answer } = await a.generate(keys.load.key, { ...request(seed), top_k: 50_000 });
    assert.equal(answer.cache, "miss");
    assert.equal(tokens, answer.samples[0]!.tokens.join(), `${seed}`);
  }
});

test("without Redis each replica continues alone with one warning, and shares again afterwards", {
  skip,
}, async () => {
  await shared();
  const warnings = () => [a, b].map((one) => one.complaints.filter((line) => /Redis/.test(line)));
  const before = warnings().map((lines) => lines.length);
  await end(redis, "SIGKILL");
  for (let i = 0; i < 20; i++)
    for (const one of [a, b])
      assert.equal((await one.generate(keys.load.key, { seed: 5000 + i })).status, 200);
  // Each replica now counts limits itself, starting from its own usage.
  let allowed = 0;
  for (let i = 0; i < 6; i++)
    for (const one of [a, b]) if ((await one.generate(keys.alone.key, {})).status === 200) allowed++;
  assert.equal(allowed, 2 * 3);
  assert.equal((await a.generate(keys.load.key, { seed: 5000 })).answer.cache, "hit");
  assert.deepEqual(
    warnings().map((lines) => lines.length),
    before.map((lines) => lines + 1),
  );
  for (const lines of warnings())
    assert.match(lines.at(-1)!, /Redis .* quotas and the cache stay in this process/);
  for (const one of [a, b]) assert.equal(await one.metric("didi_redis_up"), 0);

  await startRedis();
  await shared();
  assert.equal((await a.generate(keys.load.key, { seed: 6000 })).answer.cache, "miss");
  assert.equal((await b.generate(keys.load.key, { seed: 6000 })).answer.cache, "hit");
});

test("a Redis that hangs delays no request", { skip }, async () => {
  redis.kill("SIGSTOP");
  try {
    const started = performance.now();
    for (let i = 0; i < 10; i++)
      assert.equal((await a.generate(keys.load.key, { seed: 7000 + i })).status, 200);
    // One command waits for its time limit; the others are not sent.
    assert.equal(await a.metric("didi_redis_up"), 0);
    assert.ok(performance.now() - started < 20_000);
  } finally {
    redis.kill("SIGCONT");
  }
  await shared();
});
