/** How large a call should be on this machine: measured once at start-up. */

import type { Model } from "../model/model.ts";
import type { WorkerPool } from "../runtime/pool.ts";
import type { DenoiseBatch } from "../runtime/protocol.ts";
import { type BatchLimits, paddedLength } from "./scheduler.ts";

/** Canvas length that is measured, or the context if that is less. */
const LENGTH = 128;
/** The smallest call is taken that has at least this share of the best throughput. */
const NEAR_BEST = 0.96;
/** So many doublings in a row that bring no more end the measurement: one alone may have been disturbed. */
const PATIENCE = 2;
/** Milliseconds: a longer call would keep newcomers waiting, whatever it brings. */
const LONGEST_MS = 500;
/** Milliseconds: a call as short as this keeps nobody waiting, so it may be as large if more rows seem to bring nothing: the machine may only have been busy. */
const SHORT_MS = 50;
/** A call that takes at most so many times what the smallest takes is light. */
const LIGHT = 1.5;
/** Padded tokens that are never exceeded. */
const MOST_TOKENS = 1 << 16;
/** Calls of each size, in turn with calls of half of it; the fastest counts. */
const REPEATS = 5;

/** Canvases that are all masks, each with a sixteenth of its positions to draw. */
function probe(model: Model, rows: number, padded: number): DenoiseBatch {
  const perRow = Math.ceil(padded / 16);
  const picks = Array.from({ length: rows * perRow }, (_, i) => [Math.floor(i / perRow), i % perRow]).flat();
  const draws = rows * perRow;
  return {
    rows,
    padded,
    tokens: new Int32Array(rows * padded).fill(model.manifest.mask_token_id),
    length: new Int32Array(rows).fill(padded),
    sigma: new Float32Array(rows),
    picks: Int32Array.from(picks),
    draws: Int32Array.from({ length: draws }, (_, i) => i),
    uniform: new Float32Array(draws).fill(0.5),
    temperature: new Float32Array(draws).fill(1),
    topK: new Int32Array(draws),
    topP: new Float32Array(draws).fill(1),
    maskBias: new Float32Array(rows).fill(-1e9),
  };
}

/**
 * Doubles the rows of a `denoise` call until that brings no more throughput, or longer while it stays short: the bounds of a call. Takes about 40
 * times as long as the call that is chosen. Rejects with RuntimeFailure if the model does not run.
 */
export async function calibrate(
  model: Model,
  runtime: WorkerPool,
  clock: { now(): number } = performance,
): Promise<BatchLimits> {
  const { context_length } = model.manifest;
  const padded = paddedLength(Math.min(LENGTH, context_length), context_length);
  const time = async (batch: DenoiseBatch) => {
    // With the way to the process and back: a larger call saves that too.
    const started = clock.now();
    await runtime.run("denoise", batch);
    return clock.now() - started;
  };
  /** Milliseconds of the fastest call of so many rows and of twice as many, in turn: what else the machine does meets both. */
  const pair = async (rows: number) => {
    const batches = [probe(model, rows, padded), probe(model, 2 * rows, padded)] as const;
    // The first calls of a size prepare memory.
    for (const batch of batches) await time(batch);
    const fastest: [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let i = 0; i < REPEATS; i++)
      for (const [k, batch] of batches.entries()) fastest[k] = Math.min(fastest[k]!, await time(batch));
    return fastest;
  };
  let light = 1;
  let short = 1;
  let wasted = 0;
  let one: number | undefined;
  /** Throughput of each size, relative to a call of one row. */
  const throughput = [{ rows: 1, relative: 1 }];
  for (let rows = 1; 2 * rows * padded <= MOST_TOKENS && wasted < PATIENCE; rows *= 2) {
    const [single, double] = await pair(rows);
    one ??= single;
    if (double > LONGEST_MS) break;
    if (double <= LIGHT * one) light = 2 * rows;
    if (double <= SHORT_MS) short = 2 * rows;
    const gain = (2 * single) / double;
    throughput.push({ rows: 2 * rows, relative: throughput.at(-1)!.relative * gain });
    wasted = gain > 1 / NEAR_BEST ? 0 : wasted + 1;
  }
  const best = Math.max(...throughput.map(({ relative }) => relative));
  const rows = Math.max(short, throughput.find(({ relative }) => relative >= NEAR_BEST * best)!.rows);
  const lightTokens = Math.min(light, rows) * padded;
  return { maxTokens: rows * padded, lightTokens, spreadTokens: lightTokens };
}
