/**
 * RGAS, the reward-guided ancestral sampler (arXiv 2509.25035, section 4.3): which steps tilt and which
 * re-rank, the scale of a tilt, and the choice of a candidate. The gradient itself is computed by the `tilt`
 * graph.
 */

/** Settings of guided sampling. */
export interface Guidance {
  /** M, the number of candidates of a re-ranked step; at least 1. */
  candidates: number;
  /** h0, the scale of the first tilted step. */
  scaleStart: number;
  /** h1, the scale of the last tilted step. */
  scaleEnd: number;
  /** Share of the steps that re-rank, the last ones; in [0, 1]. */
  rerankRatio: number;
}

/** Kind of a step: plain, from a tilted distribution, a choice among candidates, or one of each particle. */
export type StepKind = "plain" | "tilt" | "rerank" | "smc";

/** Return the number of tilted steps, k in the paper; the other steps re-rank. */
export function tiltedSteps(guidance: Guidance, steps: number): number {
  return Math.floor(steps * (1 - guidance.rerankRatio));
}

/** Return the kind of step `step` (from 0) of `steps`. The clean-up pass after the last step is plain. */
export function stepKind(guidance: Guidance | undefined, step: number, steps: number): StepKind {
  if (!guidance || step >= steps) return "plain";
  return step < tiltedSteps(guidance, steps) ? "tilt" : "rerank";
}

/** Return h of a tilted step: linear from h0 to h1 over the tilted steps. */
export function tiltScale(guidance: Guidance, step: number, steps: number): number {
  const { scaleStart, scaleEnd } = guidance;
  return scaleStart + ((scaleEnd - scaleStart) * step) / Math.max(1, tiltedSteps(guidance, steps) - 1);
}

/**
 * Return the index of a candidate, drawn by inverse CDF with probability softmax(rewards).
 *
 * @param uniform in (0, 1)
 */
export function chooseCandidate(rewards: ArrayLike<number>, uniform: number): number {
  const best = Math.max(...Array.from(rewards));
  let total = 0;
  const cumulative = Array.from(rewards, (reward) => {
    total += Math.exp(reward - best);
    return total;
  });
  return cumulative.findIndex((sum) => sum >= uniform * total);
}
