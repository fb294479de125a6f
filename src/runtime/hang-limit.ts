/**
 * Decide when a batch has hung: after FACTOR times the usual time of such batches, and never before MIN_MS.
 */

import type { Batch, GraphName } from "./protocol.ts";

/** A batch that takes this many times the estimate has hung. */
const FACTOR = 30;
/** Milliseconds that any batch may take. */
const MIN_MS = 10_000;
/** Limit for a graph that has not run yet: its first batch prepares it. */
const FIRST_MS = 300_000;
/** Share of the distance to a faster batch by which an estimate falls. */
const DECAY = 0.1;

/**
 * Estimates the time of batches by graph and size (padded tokens, in powers of two). An estimate rises at
 * once to a slower batch, and falls by a tenth of the distance with each faster one.
 */
export class HangLimit {
  /** Milliseconds per padded token of each graph, by size. */
  readonly #estimates = new Map<GraphName, Map<number, number>>();

  constructor(
    readonly limits: { leastMs: number; firstMs: number } = { leastMs: MIN_MS, firstMs: FIRST_MS },
  ) {}

  /** Record that a batch took `milliseconds`. */
  observe({ graph, input }: Batch, milliseconds: number): void {
    const tokens = input.rows * input.padded;
    const perToken = milliseconds / tokens;
    const ofGraph = this.#estimates.get(graph) ?? new Map<number, number>();
    const size = sizeOf(tokens);
    const before = ofGraph.get(size) ?? perToken;
    ofGraph.set(size, Math.max(perToken, before + DECAY * (perToken - before)));
    this.#estimates.set(graph, ofGraph);
  }

  /** Return the milliseconds after which a batch has hung. A new size uses the slowest rate of its graph. */
  of({ graph, input }: Batch): number {
    const ofGraph = this.#estimates.get(graph);
    if (!ofGraph) return this.limits.firstMs;
    const tokens = input.rows * input.padded;
    const perToken = ofGraph.get(sizeOf(tokens)) ?? Math.max(...ofGraph.values());
    return Math.max(this.limits.leastMs, FACTOR * perToken * tokens);
  }
}

const sizeOf = (tokens: number) => Math.ceil(Math.log2(tokens));
