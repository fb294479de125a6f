/** How long the model takes, learnt from its own batches. */

import { type Guidance, tiltedSteps } from "../../diffusion/guidance.ts";
import type { Sample } from "../../diffusion/sampler.ts";
import type { GraphName } from "../../runtime/protocol.ts";

/** Weight of the newest batch in a moving average. */
const NEWEST = 0.1;

/** Work of a pass of each graph, in passes of the student: the discriminator is as large. */
export const GRAPH_COST: Record<GraphName, number> = { denoise: 1, score: 1, tilt: 4 };

/** Work of a budget's steps, one by one: passes of each graph at their `cost`. */
export function budgetWork(
  steps: number,
  guidance: Guidance | undefined,
  cost: (graph: GraphName) => number,
): number {
  const tilted = guidance ? tiltedSteps(guidance, steps) : 0;
  const reranked = guidance ? steps - tilted : 0;
  const plain = steps - tilted - reranked;
  const rerank = cost("denoise") + (guidance?.candidates ?? 0) * cost("score");
  return plain * cost("denoise") + tilted * cost("tilt") + reranked * rerank;
}

/** What the time of a row depends on. */
export interface TimedRow {
  /** Padded canvas length. */
  readonly padded: number;
  /** Step budget. */
  readonly steps: number;
  readonly sample: Sample;
}

/** Moving averages over batches. Before the first batch it answers 0. */
export class Speed {
  readonly #msPerToken = new Map<GraphName, number>();
  /** Milliseconds of a batch. */
  msPerBatch = 0;

  /** Take note of a batch and the time until its worker was free again, the way there and back included. */
  observe(graph: GraphName, paddedTokens: number, milliseconds: number): void {
    const perToken = milliseconds / paddedTokens;
    const before = this.#msPerToken.get(graph) ?? perToken;
    this.#msPerToken.set(graph, before + NEWEST * (perToken - before));
    this.msPerBatch += (this.msPerBatch === 0 ? 1 : NEWEST) * (milliseconds - this.msPerBatch);
  }

  /** Return the milliseconds that a budget takes on a canvas of `padded` tokens, its steps one by one. */
  budgetMs(padded: number, steps: number, guidance: Guidance | undefined): number {
    return padded * budgetWork(steps, guidance, (graph) => this.#ms(graph));
  }

  /** Return the milliseconds that one step of a row takes. */
  stepMs({ padded, steps, sample }: TimedRow): number {
    return this.budgetMs(padded, steps, sample.params.guidance) / steps;
  }

  /** Return the milliseconds that a row has left at most: a step that reveals nothing is free. */
  rowMs(row: TimedRow): number {
    const { stepsLeft, canvas } = row.sample;
    return Math.min(stepsLeft, canvas.masked.length) * this.stepMs(row);
  }

  /** Milliseconds per padded token; of a graph that has not run yet, in proportion to the student's. */
  #ms(graph: GraphName): number {
    return this.#msPerToken.get(graph) ?? (this.#msPerToken.get("denoise") ?? 0) * GRAPH_COST[graph];
  }
}
