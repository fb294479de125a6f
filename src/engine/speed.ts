/** How long the model takes, learnt from its own calls. */

import { type Guidance, tiltedSteps } from "../diffusion/guidance.ts";
import type { Sample } from "../diffusion/sampler.ts";
import type { GraphName } from "../runtime/protocol.ts";
import type { Generation } from "./generation.ts";

/** Weight of the newest call in a moving average. */
const NEWEST = 0.1;

/** Work of a call of each graph, in passes of the student: the discriminator is as large, its gradient twice that. */
export const COST: Record<GraphName, number> = { denoise: 1, score: 1, tilt: 4 };

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

/** The same among calls of one size. */
const NEWEST_OF_SIZE = 0.3;

/** Moving averages over calls. Before the first call it answers 0. */
export class Speed {
  readonly #msPerToken = new Map<GraphName, number>();
  /** By graph and padded tokens. */
  readonly #msOfSize = new Map<string, number>();
  #msPerCall = 0;

  /** Takes note of a call, with all that it kept others waiting: the way to the process and back, and what the server did for it. */
  observe(graph: GraphName, paddedTokens: number, milliseconds: number): void {
    const perToken = milliseconds / paddedTokens;
    const before = this.#msPerToken.get(graph) ?? perToken;
    this.#msPerToken.set(graph, before + NEWEST * (perToken - before));
    const size = `${graph} ${paddedTokens}`;
    const ofSize = this.#msOfSize.get(size) ?? milliseconds;
    this.#msOfSize.set(size, ofSize + NEWEST_OF_SIZE * (milliseconds - ofSize));
    this.#msPerCall += (this.#msPerCall === 0 ? 1 : NEWEST) * (milliseconds - this.#msPerCall);
  }

  /** Milliseconds of a call. */
  get msPerCall(): number {
    return this.#msPerCall;
  }

  /** Milliseconds of a call of so many padded tokens. */
  callMs(graph: GraphName, paddedTokens: number): number {
    return this.#msOfSize.get(`${graph} ${paddedTokens}`) ?? paddedTokens * this.#ms(graph);
  }

  /** Milliseconds that a budget takes on a canvas of so many padded tokens, its steps one by one. */
  budgetMs(padded: number, steps: number, guidance: Guidance | undefined): number {
    return padded * budgetWork(steps, guidance, (graph) => this.#ms(graph));
  }

  /** Milliseconds of model time that a generation has left at most; `pad` gives the padded length of a canvas. */
  workMs({ computation, samples }: Generation, pad: (length: number) => number): number {
    const { steps, guidance } = computation;
    // A step that reveals nothing is free, so no more steps are paid than positions are masked.
    const paid = ({ canvas, stepsLeft }: Sample) => Math.min(stepsLeft, canvas.masked.length) / steps;
    return samples.reduce(
      (sum, one) => sum + paid(one) * this.budgetMs(pad(one.canvas.tokens.length), steps, guidance),
      0,
    );
  }

  /** Milliseconds per padded token; of a graph that has not run yet, in proportion to the student's. */
  #ms(graph: GraphName): number {
    return this.#msPerToken.get(graph) ?? (this.#msPerToken.get("denoise") ?? 0) * COST[graph];
  }
}
