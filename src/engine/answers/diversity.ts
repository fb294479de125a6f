/** Diversity of a text, from its tokens alone. It drops first when a model collapses. */

/**
 * Return the entropy of the token frequencies in nats: 0 if one token fills the text, ln(L) if all differ.
 */
export function unigramEntropy(tokens: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
  let entropy = 0;
  for (const count of counts.values()) entropy -= (count / tokens.length) * Math.log(count / tokens.length);
  return Math.max(0, entropy);
}

/**
 * Return the share, in [0, 1], of the runs of `n` tokens that repeat an earlier run; 0 for a text shorter
 * than `n`.
 */
export function repeatedShare(tokens: readonly number[], n: number): number {
  const runs = tokens.length - n + 1;
  if (runs < 1) return 0;
  const seen = new Set<string>();
  for (let start = 0; start < runs; start++) seen.add(tokens.slice(start, start + n).join());
  return 1 - seen.size / runs;
}
