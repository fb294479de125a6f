/** Estimate how long the model takes, from the batches it ran. */

import { type Guidance, tiltedSteps } from "../../diffusion/guidance.ts";
import type { Sample } from "../../diffusion/sampler.ts";
import { type GraphName, scores } from "../../runtime/protocol.ts";

/** Weight of the newest batch in a moving average. */
const NEWEST = 0.1;

/** A first batch allocates memory and may load its graph: it counts only until there is a second one. */
const weightOf = (batchesBefore: number) => (batchesBefore < 2 ? 1 : NEWEST);

/** Cost of a pass of each graph in passes of the student. The discriminator is as large as the student. */
export const GRAPH_COST = { denoise: 1, score: 1, tilt: 4 };

/** Return the cost of a pass of a graph in passes of the student. Rewards are taken to be as large as it. */
export const costOf = (graph: GraphName) => (scores(graph) ? GRAPH_COST.score : GRAPH_COST[graph]);

/** What the duration of a row depends on. */
export interface TimedRow {
  /** Padded canvas length. */
  readonly padded: number;
  readonly sample: Sample;
}

/** Moving averages over batches; all estimates are 0 before the first batch. */
export class Speed {
  readonly #msPerToken = new Map<GraphName, number>();
  /** Batches so far of each graph. */
  readonly #batches = new Map<GraphName, number>();
  #allBatches = 0;
  /** Milliseconds of a batch. */
  msPerBatch = 0;

  /** Record a batch and the milliseconds until its worker was free again, communication included. */
  observe(graph: GraphName, paddedTokens: number, milliseconds: number): void {
    const perToken = milliseconds / paddedTokens;
    const before = this.#msPerToken.get(graph) ?? 0;
    const batches = this.#batches.get(graph) ?? 0;
    this.#msPerToken.set(graph, before + weightOf(batches) * (perToken - before));
    this.msPerBatch += weightOf(this.#allBatches) * (milliseconds - this.msPerBatch);
    this.#batches.set(graph, batches + 1);
    this.#allBatches++;
  }

  /**
   * Estimate the milliseconds of all steps of a budget on a canvas of `padded` tokens, in batches of its own.
   */
  budgetMs(padded: number, steps: number, guidance: Guidance | undefined): number {
    const tilted = guidance ? tiltedSteps(guidance, steps) : 0;
    const reranked = guidance ? steps - tilted : 0;
    const scored = reranked * (guidance?.candidates ?? 0);
    // Every step that does not tilt runs `denoise` once.
    const perToken =
      (steps - tilted) * this.#ms("denoise") + tilted * this.#ms("tilt") + scored * this.#ms("score");
    return padded * perToken;
  }

  /** Estimate the milliseconds of one step of a row. */
  stepMs({ padded, sample: { params } }: TimedRow): number {
    if (params.smc) return padded * params.smc.particles * (this.#ms("denoise") + this.#ms("score"));
    return this.budgetMs(padded, params.steps, params.guidance) / params.steps;
  }

  /** Estimate the milliseconds that a row still needs at most. A step that reveals nothing takes no time. */
  rowMs(row: TimedRow): number {
    const { stepsLeft, canvas } = row.sample;
    return Math.min(stepsLeft, canvas.masked.length) * this.stepMs(row);
  }

  /** Milliseconds per padded token. A graph that has not run yet is estimated from the student. */
  #ms(graph: GraphName): number {
    return this.#msPerToken.get(graph) ?? (this.#msPerToken.get("denoise") ?? 0) * costOf(graph);
  }
}
