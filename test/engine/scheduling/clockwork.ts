/** A dispatcher on a simulated clock, and requests for it. */

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { prepare } from "../../../src/engine/prepare.ts";
import { SampleGroup } from "../../../src/engine/sample-group.ts";
import { Dispatcher, type DispatcherLimits } from "../../../src/engine/scheduling/dispatcher.ts";
import { ModelFailure } from "../../../src/errors.ts";
import type { WorkerPool } from "../../../src/runtime/pool.ts";
import type { DenoiseInput, DenoiseResult } from "../../../src/runtime/protocol.ts";
import { startEngine, TINY_GUIDED } from "../../support/engine.ts";

export const LENGTH = 32;
/** Milliseconds of the simulated clock that a batch takes, communication included. */
export const BATCH_MS = 10;
/** Milliseconds of it that the graph is said to have run. */
export const GRAPH_MS = 4;

export const engine = await startEngine({}, TINY_GUIDED);

/** A pool with a simulated clock. Every batch really runs. */
export class Clockwork extends EventEmitter {
  readonly healthy: number;
  free: number;
  restarts = 0;
  time = 0;
  /** Rows of each batch. */
  readonly batches: number[] = [];
  /** Tries that each batch may take. */
  readonly attempts: (number | undefined)[] = [];
  /** Number of the batch during which a worker is replaced. */
  restartIn = -1;
  /** Batches that fail. */
  failsFor: (batch: DenoiseInput) => boolean = () => false;
  /** Change the result of a batch. */
  alter: (result: DenoiseResult, batch: DenoiseInput) => void = () => {};
  failure: Error = new ModelFailure("as a graph that cannot run");

  constructor(workers: number) {
    super();
    this.healthy = workers;
    this.free = workers;
  }

  now() {
    return this.time;
  }

  async run(graph: "denoise", batch: DenoiseInput, attempts?: number) {
    assert.ok(this.free > 0, "a batch is started when a worker is free");
    this.batches.push(batch.rows);
    this.attempts.push(attempts);
    this.free--;
    const result = await engine.pool.run(graph, batch);
    this.time += BATCH_MS;
    if (this.batches.length === this.restartIn) {
      this.restarts++;
      this.time += 1000;
    }
    this.free++;
    if (this.failsFor(batch)) throw this.failure;
    this.alter(result, batch);
    return { ...result, milliseconds: GRAPH_MS };
  }
}

/** Prompts differ, so that first passes are not shared. */
export const requestOf = (seed: number, steps: number, n = 1) => ({
  ...{ prompt_tokens: [seed], length: LENGTH - 1, steps, seed, n, guidance: { mode: "none" as const } },
});

export function groupOf(seed: number, steps: number, deadlineMs?: number, n = 1): SampleGroup {
  const { params } = prepare(engine.model, requestOf(seed, steps, n), () => 0);
  return new SampleGroup(params, engine.model, deadlineMs, 0);
}

/** Return a dispatcher with batches of `rows` canvases. */
export function dispatcherOf(rows: number | "auto", maxActive = 64, workers = 1) {
  const pool = new Clockwork(workers);
  const limits: DispatcherLimits = { maxBatchTokens: rows === "auto" ? rows : rows * LENGTH, maxActive };
  const { context_length } = engine.model.manifest;
  return { pool, dispatcher: new Dispatcher(pool as unknown as WorkerPool, context_length, limits, pool) };
}

/** Resolve once `count` groups are done. Reject if one fails. */
export function finished(dispatcher: Dispatcher, count: number): Promise<void> {
  let left = count;
  return new Promise<void>((resolve, reject) => {
    dispatcher.on("done", (one) => {
      one.ended = true;
      if (--left === 0) resolve();
    });
    dispatcher.on("failed", (_, error) => reject(error));
  });
}
