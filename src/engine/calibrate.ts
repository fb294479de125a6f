/** How large a call should be on this machine: measured once at start-up. */

import type { Model } from "../model/model.ts";
import type { RuntimePool } from "../runtime/pool.ts";
import type { DenoiseBatch } from "../runtime/protocol.ts";
import { type BatchLimits, paddedLength } from "./scheduler.ts";

/** Canvas length that is measured, or the context if that is less. */
const LENGTH = 128;
/** Doubling the rows of a call has to bring at least so much throughput. */
const LEAST_GAIN = 1.05;
/** A call that takes at most so many times what the smallest takes is light. */
const LIGHT = 1.5;
/** Padded tokens that are never exceeded. */
const MOST_TOKENS = 1 << 16;
/** Calls of each size; the fastest counts, and the first prepares memory. */
const REPEATS = 4;

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
 * Doubles the rows of a `denoise` call until that brings no more throughput: the bounds of a call. Takes about 15
 * times as long as the largest call. Rejects with RuntimeFailure if the model does not run.
 */
export async function calibrate(
  model: Model,
  runtime: RuntimePool,
  clock: { now(): number } = performance,
): Promise<BatchLimits> {
  const { context_length } = model.manifest;
  const padded = paddedLength(Math.min(LENGTH, context_length), context_length);
  const fastest = async (rows: number) => {
    const batch = probe(model, rows, padded);
    const times: number[] = [];
    for (let i = 0; i < REPEATS; i++) {
      // With the way to the process and back: a larger call saves that too.
      const started = clock.now();
      await runtime.run("denoise", batch);
      times.push(clock.now() - started);
    }
    return Math.min(...times);
  };
  const one = await fastest(1);
  let rows = 1;
  let light = 1;
  for (let before = one; 2 * rows * padded <= MOST_TOKENS; rows *= 2) {
    const now = await fastest(2 * rows);
    if (now <= LIGHT * one) light = 2 * rows;
    if ((2 * before) / now < LEAST_GAIN) break;
    before = now;
  }
  return { maxTokens: rows * padded, lightTokens: light * padded };
}
