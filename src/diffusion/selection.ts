/** Which of the drawn positions a step reveals, for orders that choose after the model has run. */

/** What positions are ranked by. */
export type Ranking = "confidence" | "entropy" | "margin";

/** How a step chooses among the positions it drew. */
export interface Selection {
  ranking: Ranking;
  /** Reveal at least this many: what the step budget requires. */
  least: number;
  /** With `confidence`: reveal every token whose probability is at least this; in [0, 1]. */
  threshold?: number | undefined;
  /** With `entropy`: reveal positions while the sum of their entropies is at most this; nats, at least 0. */
  entropyBudget?: number | undefined;
}

/** What the model predicted at each drawn position: arrays of one length. */
export interface Predictions {
  /** Natural log-probability of the drawn token. */
  logprobs: ArrayLike<number>;
  /** Entropy of the predicted distribution, nats. */
  entropies: ArrayLike<number>;
  /** Probability of the most likely token less that of the second; for `margin`. */
  margins?: ArrayLike<number>;
}

/**
 * Return the indices of the positions to reveal, ascending. Ties go to the position further left.
 *
 * `confidence` ranks by the probability of the drawn token (LLaDA, arXiv 2502.09992), `entropy` by the
 * entropy of the prediction, lowest first, `margin` by how much more likely the most likely token is than the
 * second (arXiv 2502.06768). A threshold or an entropy budget reveals more positions than
 * `least` where the model is certain of them, never fewer.
 */
export function select(selection: Selection, predictions: Predictions): number[] {
  const { ranking, least } = selection;
  const { logprobs, entropies, margins } = predictions;
  const scores = { confidence: logprobs, entropy: entropies, margin: margins! }[ranking];
  const score = (i: number) => (ranking === "entropy" ? -scores[i]! : scores[i]!);
  const ranked = Array.from({ length: logprobs.length }, (_, i) => i).sort(
    (a, b) => score(b) - score(a) || a - b,
  );
  const count = Math.max(least, certain(selection, predictions, ranked));
  return ranked.slice(0, count).sort((a, b) => a - b);
}

/** Return how many of the `ranked` positions the threshold or the entropy budget admits. */
function certain(selection: Selection, { logprobs, entropies }: Predictions, ranked: number[]): number {
  const { threshold, entropyBudget } = selection;
  if (threshold !== undefined) return ranked.filter((i) => logprobs[i]! >= Math.log(threshold)).length;
  if (entropyBudget === undefined) return 0;
  let sum = 0;
  const first = ranked.findIndex((i) => {
    sum += entropies[i]!;
    return sum > entropyBudget;
  });
  return first < 0 ? ranked.length : first;
}
