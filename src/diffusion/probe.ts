/**
 * Draws whose outcome is known beforehand. They return the log-probability of a token without a logit leaving
 * the graph: at a very high temperature all tokens weigh the same, so that the uniform alone decides which of
 * them is drawn.
 */

/**
 * Temperature of such a draw. Log-probabilities of up to 100 nats change a weight by 1e-6, so that the sum
 * over 50,000 tokens is off by less than half a token. The mask, at -1e9, weighs less than 1e-4 of a token.
 */
export const PROBE_TEMPERATURE = 1e8;

/** Return the uniform that draws number `index` of `count` tokens of equal weight. */
export function probeUniform(index: number, count: number): number {
  return (index + 0.5) / count;
}
