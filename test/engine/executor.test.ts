import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { after, before, test } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import { Executor } from "../../src/engine/executor.ts";
import { Generation } from "../../src/engine/generation.ts";
import { prepare } from "../../src/engine/request.ts";
import { SENT_AHEAD_AT } from "../../src/engine/slots.ts";
import type { RuntimePool } from "../../src/runtime/pool.ts";
import type { DenoiseBatch } from "../../src/runtime/protocol.ts";
import { startEngine, TINY_GUIDED } from "../support.ts";

const LENGTH = 32;
/** Milliseconds of the made-up clock that a call takes, the way to the process and back included. */
const CALL_MS = 10;

let engine: Engine;
before(async () => {
  engine = await startEngine({}, TINY_GUIDED);
});
after(() => engine.runtime.close());

/** Only the clock is made up, and that the graph took no time: every call runs, one at a time. */
class Clockwork extends EventEmitter {
  readonly size = 1;
  time = 0;
  /** Calls that were taken and not answered. */
  atHand = 0;
  /** Rows of each call, and how many calls were at hand with it. */
  readonly calls: { rows: number; atHand: number }[] = [];
  #last: Promise<unknown> = Promise.resolve();
  /** The timers that are set. */
  readonly timers = new Set<() => void>();

  /** `fires`: whether they fire, while a call runs. */
  constructor(readonly fires: boolean) {
    super();
  }

  now() {
    return this.time;
  }

  setTimeout(what: () => void) {
    this.timers.add(what);
    return () => this.timers.delete(what);
  }

  run(graph: "denoise", batch: DenoiseBatch) {
    this.calls.push({ rows: batch.rows, atHand: ++this.atHand });
    const turn = this.#last.then(async () => {
      const result = await engine.runtime.run(graph, batch);
      this.time += SENT_AHEAD_AT * CALL_MS;
      for (const timer of this.fires ? this.timers : []) {
        this.timers.delete(timer);
        timer();
      }
      this.time += (1 - SENT_AHEAD_AT) * CALL_MS;
      if (this.calls.length === this.restartIn) {
        this.emit("restart");
        this.time += 1000;
      }
      this.atHand--;
      return { ...result, milliseconds: 0 };
    });
    this.#last = turn;
    return turn;
  }

  /** Number of the call in which the process is replaced. */
  restartIn = -1;
}

/** Each has a prompt of its own: their first passes are not the same. */
const requestOf = (seed: number, steps: number) => ({
  ...{ prompt_tokens: [seed], length: LENGTH - 1, steps, seed, guidance: { mode: "none" as const } },
});

function generation(seed: number, steps: number, deadlineMs?: number): Generation {
  const { computation } = prepare(engine.model, requestOf(seed, steps), () => 0);
  return new Generation(computation, engine.model, deadlineMs, 0);
}

/** Runs so many generations in calls of `rows` canvases. */
async function runAll(count: number, steps: number, rows: number, timersFire = false, deadlineMs?: number) {
  const clockwork = new Clockwork(timersFire);
  const executor = new Executor(
    clockwork as unknown as RuntimePool,
    engine.model.manifest.context_length,
    { maxBatchTokens: rows * LENGTH, maxActive: 64 },
    clockwork,
  );
  const generations = Array.from({ length: count }, (_, seed) => generation(seed, steps, deadlineMs));
  let left = count;
  const done = new Promise<void>((resolve, reject) => {
    executor.on("done", (one) => {
      one.over = true;
      if (--left === 0) resolve();
    });
    executor.on("failed", (_, error) => reject(error));
  });
  for (const one of generations) executor.add(one);
  return { clockwork, executor, generations, done };
}

/** Holds the tokens of each to those of the same request alone. */
async function assertAsAlone(generations: readonly Generation[], steps: number): Promise<void> {
  for (const [seed, one] of generations.entries()) {
    const alone = await engine.submit(requestOf(seed, steps)).result;
    assert.deepEqual([...one.samples[0]!.canvas.tokens.slice(1)], alone.samples[0]!.tokens);
  }
}

test("a process has one call at a time until that nears its end, and company changes no token", async () => {
  const { clockwork, generations, done } = await runAll(6, 8, 2);
  await done;
  assert.ok(clockwork.calls.some(({ rows }) => rows === 2));
  assert.ok(clockwork.calls.every(({ atHand }) => atHand === 1));
  assert.equal(clockwork.timers.size, 0);
  await assertAsAlone(generations, 8);
});

test("then it gets the next one, of the rows that it would get afterwards; no token changes", async () => {
  const { clockwork, generations, done } = await runAll(6, 8, 2, true);
  await done;
  const sentAhead = clockwork.calls.filter(({ atHand }) => atHand === 2);
  assert.ok(
    sentAhead.length > clockwork.calls.length / 2,
    `${sentAhead.length} of ${clockwork.calls.length}`,
  );
  assert.ok(clockwork.calls.every(({ atHand }) => atHand <= 2));
  assert.equal(clockwork.timers.size, 0);
  await assertAsAlone(generations, 8);
});

test("a call that rows of the one before it would join waits for them", async () => {
  const { clockwork, done } = await runAll(3, 8, 2, true);
  await done;
  // In the end there is nobody left who would join.
  assert.ok(clockwork.calls.slice(0, 8).every(({ atHand }) => atHand === 1));
});

test("a deadline is met beside others, whenever it comes", async () => {
  // Not before the length of a call is known.
  for (let deadline = 60; deadline <= 90; deadline += 2.5) {
    const { clockwork, executor, done } = await runAll(1, 30, 1, true, deadline);
    for (const seed of [7, 8]) executor.add(generation(seed, 30));
    const [first] = (await once(executor, "done")) as [Generation];
    assert.ok(first.samples[0]!.hurried);
    assert.ok(clockwork.time <= deadline + 1e-6, `${clockwork.time} ms, ${deadline}`);
    for (const other of executor.all()) executor.remove(other);
    void done.catch(() => {});
  }
});

test("a step is told when the next call is on its way", async () => {
  const { clockwork, executor, done } = await runAll(2, 4, 1);
  const atHand: number[] = [];
  executor.on("step", () => atHand.push(clockwork.atHand));
  await done;
  // Of each of the two rows the other one has its call, until that is over too.
  assert.deepEqual([...new Set(atHand.slice(0, -1))], [1]);
});

test("who fails to take the report of a call holds nobody up", async () => {
  const { executor, done } = await runAll(4, 4, 4);
  executor.once("batch", () => {
    throw new Error("a metric that does not exist");
  });
  await done;
  assert.equal(executor.active, 0);
});

/** What 100 more steps of one row are forecast to take, after generations ran in calls of two rows. */
async function forecast(count: number, restartIn: number): Promise<number> {
  const { clockwork, executor, done } = await runAll(count, 4, 2);
  clockwork.restartIn = restartIn;
  await done;
  return executor.forecastMs({ steps: 100, guidance: undefined }, 1, LENGTH);
}

test("a call counts with all that it keeps others waiting, beyond what the graph ran", async () => {
  for (const count of [2, 6]) assert.ok(Math.abs((await forecast(count, -1)) - (100 * CALL_MS) / 2) < 1e-6);
});

test("what the server does for a step before it asks for the next one counts too", async () => {
  const { clockwork, executor, done } = await runAll(6, 4, 2);
  executor.on("step", () => clockwork.time++);
  await done;
  const each = executor.forecastMs({ steps: 100, guidance: undefined }, 1, LENGTH);
  // The first call waited for nothing; the moving average nears that of the others.
  assert.ok(each > 550 && each < 600, `${each}`);
});

test("the time to replace a process does not count", async () => {
  const quiet = await forecast(2, -1);
  const restarted = await forecast(2, 3);
  assert.ok(restarted > 0 && restarted <= quiet, `${restarted}`);
});
