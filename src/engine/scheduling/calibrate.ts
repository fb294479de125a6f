/** Measures how large a batch should be on this machine. */

import { setImmediate } from "node:timers/promises";
import { MemoryFailure, ModelFailure } from "../../errors.ts";
import { defaultsOf } from "../../model/manifest.ts";
import type { Model } from "../../model/model.ts";
import type { WorkerPool } from "../../runtime/pool.ts";
import type { DenoiseInput } from "../../runtime/protocol.ts";
import { type BatchLimits, paddedLength, withoutMemory } from "./scheduler.ts";

/** Canvas length of the measured batches, or the context if that is shorter. */
const LENGTH = 128;
/** Up to this context, a batch takes hardly more memory if its rows are longer. */
const LONG = 512;
/** Choose the smallest batch that reaches this share of the best throughput. */
const NEAR_BEST = 0.96;
/** Stop after this many doublings in a row without a gain; a single one may be noise. */
const PATIENCE = 2;
/** Upper bound for the time of a batch, milliseconds: new requests wait for the batch that runs. */
const LONGEST_MS = 500;
/** A batch shorter than this, milliseconds, is allowed even without a measured gain. */
const SHORT_MS = 50;
/** A batch is light if it takes at most this many times as long as the smallest. */
const LIGHT = 1.5;
/** Upper bound of padded tokens in a batch. */
const MOST_TOKENS = 1 << 16;
/** Batches of each size, interleaved with batches of half the size; the fastest counts. */
const REPEATS = 5;

/** Workers that may die under a batch: one that is too large for the memory ends every worker. */
const ATTEMPTS = 2;

/** Return a batch of fully masked canvases that draws a sixteenth of the positions of each, as by default. */
function probe({ manifest }: Model, rows: number, padded: number): DenoiseInput {
  const { temperature, top_k, top_p } = defaultsOf(manifest);
  const perRow = Math.ceil(padded / 16);
  const picks = Array.from({ length: rows * perRow }, (_, i) => [Math.floor(i / perRow), i % perRow]).flat();
  const draws = rows * perRow;
  return {
    rows,
    padded,
    tokens: new Int32Array(rows * padded).fill(manifest.mask_token_id),
    length: new Int32Array(rows).fill(padded),
    sigma: new Float32Array(rows),
    picks: Int32Array.from(picks),
    draws: Int32Array.from({ length: draws }, (_, i) => i),
    uniform: new Float32Array(draws).fill(0.5),
    temperature: new Float32Array(draws).fill(temperature),
    topK: new Int32Array(draws).fill(top_k),
    topP: new Float32Array(draws).fill(top_p),
    maskBias: new Float32Array(rows).fill(-1e9),
    alternatives: 0,
  };
}

/**
 * Measure the bounds of a batch: double the rows of a `denoise` batch until the throughput stops rising.
 *
 * It uses the time inside the worker, where one batch runs at a time, so requests may run in between. It
 * takes about 40 times as long as the chosen batch. A size that fails, such as for lack of memory, ends the
 * measurement. With a long context, it also tries whether a batch of the longest rows fits into the memory.
 * Rejects with ModelFailure if the smallest sizes fail.
 */
export async function calibrate(model: Model, pool: Pick<WorkerPool, "run">): Promise<BatchLimits> {
  const { context_length } = model.manifest;
  const padded = paddedLength(Math.min(LENGTH, context_length), context_length);
  const time = async (batch: DenoiseInput) => {
    const { milliseconds } = await pool.run("denoise", batch, ATTEMPTS);
    // Requests that wait get the worker before the next measurement.
    await setImmediate();
    return milliseconds;
  };
  /**
   * Return the time of the fastest batch of `rows` rows and of twice as many, interleaved so that noise meets
   * both.
   */
  const pair = async (rows: number) => {
    const batches = [probe(model, rows, padded), probe(model, 2 * rows, padded)] as const;
    // The first batch of a size allocates memory.
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
  /** Throughput of each size, relative to a batch of one row. */
  const throughput = [{ rows: 1, relative: 1 }];
  for (let rows = 1; 2 * rows * padded <= MOST_TOKENS && wasted < PATIENCE; rows *= 2) {
    const times = await pair(rows).catch((error: Error) => {
      // A size that the memory does not hold is no fault of the model.
      if (error instanceof ModelFailure && rows > 1) return undefined;
      throw error;
    });
    if (!times) break;
    const [single, double] = times;
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
  let limits: BatchLimits = { maxTokens: rows * padded, lightTokens, spreadTokens: lightTokens };
  if (context_length <= LONG) return limits;
  // The memory of attention grows with the square of the length: try the longest rows.
  for (let long = Math.floor(limits.maxTokens / context_length); long > 1; long = Math.floor(long / 2))
    try {
      await time(probe(model, long, context_length));
      break;
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error;
      limits = withoutMemory(limits, context_length, long * context_length);
    }
  return limits;
}
